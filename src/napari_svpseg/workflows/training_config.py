"""Configs of `svpseg train`: the content of a TOML file in ``configs/``."""

from __future__ import annotations

import contextlib
import math
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..engine.training.episodes import EpisodeSettings
    from ..engine.training.trainer import TrainSettings

NOT_TOML = "{path}: not a TOML file ({error})."
NOT_READABLE = "{path}: cannot be read ({error})."


BAD_NUMBER = "data: {name} must be a number that is not negative, got {n!r}"
BAD_SHARE = "data: {name} must be a number from 0 to 1, got {n!r}"


class ConfigError(ValueError):
    """A training that cannot be done as its config or its arguments ask."""


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Name the file in errors of a config that show while it is used."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


@dataclass(frozen=True)
class DataConfig:
    """Data sets and tasks to train on.

    Parameters
    ----------
    datasets : tuple of str
        Names of folders of the data form; ``NAME:1,2`` takes some classes only.
    validation : tuple of str
        The same, never trained on.
    unlabelled : tuple of str
        Folders of which only the images are used, for superpixel tasks.
    skip : tuple of str
        Beginnings of names of unlabelled images to leave out.
    superpixel_masks : int
        Superpixel tasks for each image.
    scenes : int
        Number of drawn scenes.
    touching, textured : float
        Shares of drawn scenes whose objects touch, and whose textures are cut from the
        unlabelled images; 0 to 1.
    share : dict
        Relative frequency of ``real``, ``synthetic`` and ``superpixel`` tasks.
    """

    datasets: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    superpixel_masks: int = 6
    scenes: int = 4000
    touching: float = 0.0
    textured: float = 0.0
    share: dict[str, float] = field(
        default_factory=lambda: {"real": 0.5, "synthetic": 0.4, "superpixel": 0.1}
    )

    def __post_init__(self) -> None:
        for name in ("superpixel_masks", "scenes"):
            n = getattr(self, name)
            if not isinstance(n, int) or n < 0:
                raise ValueError(BAD_NUMBER.format(name=name, n=n))
        for name in ("touching", "textured"):
            n = getattr(self, name)
            if not isinstance(n, int | float) or not 0 <= n <= 1:
                raise ValueError(BAD_SHARE.format(name=name, n=n))
        for name, n in self.share.items():
            if not isinstance(n, int | float) or not 0 <= n < math.inf:
                raise ValueError(BAD_NUMBER.format(name=f"share of {name}", n=n))


@dataclass(frozen=True)
class OneImageConfig:
    """One-shot training on one image, in place of episodes (Kato and Hotta, 2023).

    Parameters
    ----------
    image, prompt : str
        ``DATASET/ID`` of the image learned from, and of that the prompt is cut from.
    label : int
        Class that is foreground.
    corner : two ints
        Top-left corner of the prompt, (y, x).
    """

    image: str
    prompt: str
    label: int = 1
    corner: tuple[int, ...] = (0, 0)


@dataclass(frozen=True)
class TrainingConfig:
    """Content of a config file."""

    name: str
    method: str
    title: str = ""
    paper: str = ""
    licence: str = "BSD-3-Clause"
    arguments: dict[str, Any] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    episodes: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    one_image: OneImageConfig | None = None

    @classmethod
    def read(cls, path: str | Path) -> TrainingConfig:
        """Read a TOML file.

        Raises
        ------
        ConfigError
            One line: the file and what is wrong.
        """
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf8"))
        except OSError as error:
            raise ConfigError(
                NOT_READABLE.format(path=path, error=error.strerror)
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(NOT_TOML.format(path=path, error=error)) from error
        try:
            data: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v
                for k, v in values.pop("data", {}).items()
            }
            if "one_image" in values:
                values["one_image"] = OneImageConfig(**values["one_image"])
            return cls(data=DataConfig(**data), **values)
        except (TypeError, ValueError) as error:  # names the key
            raise ConfigError(f"{path}: {error}") from error

    def settings(self) -> tuple[EpisodeSettings, TrainSettings]:
        """Return the checked settings of episodes and training."""
        from ..engine.training.episodes import EpisodeSettings
        from ..engine.training.trainer import TrainSettings

        if self.one_image is not None:  # has its own
            return EpisodeSettings(), TrainSettings(seed=self.train.get("seed", 0))
        return (
            EpisodeSettings.from_dict(self.episodes),
            TrainSettings.from_dict(self.train),
        )
