"""Training of a method from a config file: `svpseg train CONFIG.toml`."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import joined
from ..core.model_card import ModelCard
from ..core.progress import Progress, ignore_progress
from ..io.locks import lock_files, run_folder
from .identity import training_identity
from .training_config import ConfigError, TrainingConfig, naming
from .training_state import begin_training
from .training_tasks import (
    NEEDS_DATA,
    TASKS,
    example,
    read_tasks,
    sources,
    tasks_content,
    validation_batches,
)

if TYPE_CHECKING:
    from ..engine.inference.device import Device
    from ..engine.training.episodes import Episodes
    from ..models.base import PromptSegmenter

NO_RESUME = "a training on one image keeps no checkpoint: it starts from the beginning"
OTHER_ENCODER = "the weights of {name} do not fit the config: their encoders differ."


log = logging.getLogger(__name__)


def train_from_config(
    config_path: str | Path,
    *,
    data: str | Path | None = None,
    output: str | Path | None = None,
    resume: bool = False,
    minutes: float | None = None,
    device: str = "auto",
    start_from: str | None = None,
    overwrite: bool = False,
    on_progress: Progress = ignore_progress,
) -> ModelCard:
    """Train a method and write its model folder.

    Parameters
    ----------
    config_path : path
        A TOML file, see ``configs/``.
    data : path, optional
        Folder that holds the data sets the config names; a config that only draws
        scenes needs none.
    output : path, optional
        Model folder to write; ``runs/NAME/model`` by default. Checkpoints and packed
        tasks lie beside it, in ``.model.run``.
    resume : bool
        Go on from the checkpoint, if there is one of the same config, data, first
        weights and versions.
    minutes : float, optional
        Stop after this time; resume later.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    start_from : str, optional
        Model whose weights are the start.
    overwrite : bool
        Allow to replace a model that was changed, or comes from elsewhere.
    on_progress : callable
        ``(done, total, message)``; may raise `Cancelled`.

    Returns
    -------
    ModelCard
        Of the model written.

    Raises
    ------
    ConfigError
        If the config, the data or the model to start from do not fit.
    WriteError, CheckpointWriteError
        If the output folder holds something other than a model, or the disk is full.
    """
    config = TrainingConfig.read(config_path)  # before torch is loaded
    from ..engine.inference.device import choose
    from ..io.locks import claimed_model
    from ..io.model_store import check_model_folder

    folder = Path(output) if output else Path("runs") / config.name / "model"
    check_model_folder(folder, overwrite, start_from)  # now, and not after hours
    where = choose(device)
    with naming(config_path), claimed_model(folder):
        run = _Run(
            config,
            _network(config, start_from),
            folder,
            None if data is None else Path(data),
            where,
            start_from,
            on_progress,
            overwrite,
        )
        if config.one_image is not None:
            if resume:
                log.warning(NO_RESUME)
            return _train_on_one_image(run)
        seconds = math.inf if minutes is None else 60 * minutes
        return _train_on_episodes(run, seconds, resume=resume)


@dataclass(frozen=True, eq=False)
class _Run:
    """A training that is ready to begin."""

    config: TrainingConfig
    network: PromptSegmenter
    folder: Path
    data: Path | None
    device: Device
    start_from: str | None
    on_progress: Progress
    overwrite: bool

    def card(self, **training: Any) -> ModelCard:
        """Return the card of the model, with ``training`` in its training record."""
        from ..models.base import count_parameters

        config = self.config
        start = {"start_from": Path(self.start_from).name} if self.start_from else {}
        return ModelCard(
            name=config.name,
            method=config.method,
            arguments=config.arguments,
            licence=config.licence,
            title=config.title,
            paper=config.paper,
            n_parameters=count_parameters(self.network),
            training={"config": asdict(config), **training, **start},
        )

    def save(
        self, network: Any, card: ModelCard, history: list[dict[str, float]]
    ) -> ModelCard:
        """Write the model folder; return its card."""
        from ..io.model_store import save_model

        return save_model(
            self.folder, network, card, history=history, overwrite=self.overwrite
        )


def _network(config: TrainingConfig, start_from: str | None) -> PromptSegmenter:
    """Return the network of a config, with its first weights."""
    import torch

    from ..io.model_store import load_model
    from ..models.registry import ModelConfig, build

    try:
        _, settings = config.settings()
        torch.manual_seed(settings.seed)
        network = build(ModelConfig(config.method, config.arguments))
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(joined(str(error))) from error
    if start_from:
        _take_weights(network, load_model(start_from).network, start_from)
    return network


def _take_weights(network: Any, other: Any, name: str) -> None:
    """Copy a model's weights where they fit, the encoder's in any case.

    All methods are built on one encoder; a method's own weights stay as they are.
    """
    own, there = network.state_dict(), other.state_dict()
    fitting = {k: v for k, v in there.items() if k in own and v.shape == own[k].shape}
    if not all(k in fitting for k in own if k.startswith("encoder.")):
        raise ConfigError(OTHER_ENCODER.format(name=name))
    network.load_state_dict(fitting, strict=False)


def _train_on_episodes(run: _Run, seconds: float, *, resume: bool) -> ModelCard:
    """Train on episodes for ``seconds`` at most, and write the model folder."""
    from ..engine.training.episodes import Episodes
    from ..engine.training.trainer import Trainer

    config, beside = run.config, run_folder(run.folder)
    episode_settings, settings = config.settings()
    packed = read_tasks(config, run.data, beside, settings.seed)
    identity = training_identity(
        *(v.numpy() for v in run.network.state_dict().values()),
        *tasks_content(packed),
        config=asdict(config),
    )
    resumed, told = begin_training(
        beside, identity, resume=resume, keep=(*lock_files(), TASKS)
    )
    for note in told:
        log.warning("%s", note)
    trainer = Trainer(run.network, settings, beside, run.device.torch_device)
    if resumed:
        trainer.resume()
    wanted = sources(config.data, packed, settings.seed)

    def episodes(start: int) -> Episodes:
        return Episodes(
            wanted,
            episode_settings,
            batch=settings.batch,
            n_batches=settings.steps,
            seed=settings.seed,
            start=start,
        )

    trainer.run(
        episodes,
        validation_batches(config, packed),
        seconds=seconds,
        on_progress=run.on_progress,
    )
    last = trainer.history[-1] if trainer.history else {}
    card = run.card(
        steps_done=trainer.step,
        episodes=trainer.step * settings.batch,
        **{k: v for k, v in last.items() if k.startswith("validation")},
    )
    return run.save(trainer.average, card, trainer.history)


def _train_on_one_image(run: _Run) -> ModelCard:
    """Train on one image and one prompt, and write the model folder."""
    from ..engine.training.one_image import OneImageSettings, fit_one_image

    config, wanted = run.config, run.config.one_image
    assert wanted is not None
    if run.data is None:
        raise ConfigError(NEEDS_DATA.format(name=config.name, what=wanted.image))
    settings = OneImageSettings.from_dict(config.train)
    losses = fit_one_image(
        run.network,
        example(run.data, wanted.image, wanted.label),
        example(run.data, wanted.prompt, wanted.label, wanted.corner),
        settings,
        run.device.torch_device,
        run.on_progress,
    )
    history = [{"step": i + 1.0, "total": loss} for i, loss in enumerate(losses)]
    card = run.card(steps_done=settings.steps)
    return run.save(run.network, card, history)
