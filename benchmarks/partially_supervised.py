"""Partially supervised learning: images of which a part is annotated, two networks.

    python benchmarks/partially_supervised.py DATA --json bench-output/partial.json

DATA contains ``isbi2012_membrane`` and ``vnc_sstem``. In each fold four sections of two
thirds of a stack are annotated in one square, of a half, a quarter or an eighth of
their area; scored are sections of the last third. All arms see the same annotations,
take the same number of steps, and have the same prompts of 64 x 64 pixels, one within
the smallest square of each section:

- ``U-Net on the annotated parts``: the conventional way;
- ``first network``: svp-attention, fine-tuned on the annotated parts;
- ``second network``: the same U-Net, trained on the annotated parts and, elsewhere, on
  what the first network is confident of;
- ``U-Net on whole images``: annotated everywhere, the upper bound.

The score is the mean Dice of membrane and all else, from one confusion table of all
test pixels. Each record is saved at once; an interrupted run continues where it was.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import napari_svpseg as svpseg
from kato_hotta import (
    FOLDS,
    SETS,
    add_record,
    class_mean_dice,
    confusion,
    read_records,
)
from napari_svpseg.core.annotation.partial_images import PartialImage
from napari_svpseg.core.annotation.partial_labels import from_labels, to_ids
from napari_svpseg.core.geometry import PROMPT_SIZE, Box
from napari_svpseg.core.image import intensity_range
from napari_svpseg.core.jobs.finetune_job import FineTuneSettings
from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.engine.finetuning.student import train_plain, train_student
from napari_svpseg.engine.inference.device import Device, choose
from napari_svpseg.engine.inference.predict import predict
from napari_svpseg.engine.inference.prompt_features import network_scale
from napari_svpseg.io.datasets import Dataset, read_dataset
from napari_svpseg.io.model_store import load_model
from napari_svpseg.models.base import PromptSegmenter

SHARES = (0.5, 0.25, 0.125)
"""Shares of the area of each training image that is annotated."""
ARMS = (
    "U-Net on the annotated parts",
    "first network",
    "second network",
    "U-Net on whole images",
)
N_TRAINED, N_TESTED = 4, 3
SIDE = 384
"""Side of the middle part of a section that is trained on or scored."""
MEMBRANE = 1


class Fold:
    """The sections of a fold.

    Parameters
    ----------
    dataset : Dataset
    number : int
        Which third of the stack is scored.
    """

    def __init__(self, dataset: Dataset, number: int) -> None:
        self.dataset, self.number = dataset, number
        names = list(dataset.ids)
        third = len(names) // FOLDS
        tested = names[number * third : (number + 1) * third]
        others = [name for name in names[: FOLDS * third] if name not in tested]
        self.trained = others[:: len(others) // N_TRAINED][:N_TRAINED]
        self.tested = tested[:: max(1, third // N_TESTED)][:N_TESTED]
        rng, margin = np.random.default_rng([number, 7]), PROMPT_SIZE
        self._centres = rng.integers(margin, SIDE - margin, (N_TRAINED, 2)).tolist()

    def section(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the middle part of a section (Y, X), and where membrane is."""
        image = self.dataset.image(name)
        image = image if image.ndim == 2 else image[..., 0]
        middle = tuple(slice((n - SIDE) // 2, (n + SIDE) // 2) for n in image.shape)
        return image[middle], self.dataset.labels(name)[middle] == MEMBRANE

    def annotated(self, share: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return the training images, and their partial labels in a square.

        A larger square of an image holds the smaller ones.
        """
        images, labels = [], []
        for name, centre in zip(self.trained, self._centres, strict=True):
            image, mask = self.section(name)
            box = _square(centre, round(SIDE * share**0.5))
            images.append(image)
            labels.append(from_labels(mask.astype(np.int32), [box], classes=True))
        return images, labels

    def prompts(self) -> PromptSet:
        """Return a prompt of each training image, the same for all shares."""
        found = []
        for number, (name, centre) in enumerate(
            zip(self.trained, self._centres, strict=True)
        ):
            image, mask = self.section(name)
            y, x, side, _ = _square(centre, PROMPT_SIZE)
            box = Box(y, x, side)
            source = f"section {number}"
            found.append(
                Prompt.from_image(image, mask.astype(np.int32), box, source=source)
            )
        return PromptSet(found)

    def score(
        self, network: PromptSegmenter, prompts: PromptSet, device: Device
    ) -> float:
        """Return the class-mean Dice of a network on the tested sections."""
        counts = torch.zeros(2, 2)
        for name in self.tested:
            image, mask = self.section(name)
            plane = image[..., None]
            found = predict(
                plane, prompts, network, device, intensities=intensity_range(plane)
            ).maps.foreground
            counts += confusion(
                torch.from_numpy(mask.astype(int)), torch.from_numpy(found > 0.5)
            )
        return class_mean_dice(counts)


def _square(centre: list[int], side: int) -> tuple[int, int, int, int]:
    """Return row, column and sides of a square around a place, moved into the image."""
    y, x = (int(np.clip(c - side // 2, 0, SIDE - side)) for c in centre)
    return y, x, side, side


def partial_images(
    images: list[np.ndarray], labels: list[np.ndarray]
) -> list[PartialImage]:
    """Return images with partial labels, all of them for training."""
    return [
        PartialImage(
            image[..., None],
            intensity_range(image[..., None]),
            to_ids(given),
            np.zeros(given.shape, bool),
            f"section {number}",
        )
        for number, (image, given) in enumerate(zip(images, labels, strict=True))
    ]


def run(fold: Fold, share: float, steps: int, model: str) -> dict[str, float]:
    """Return the score of each arm."""
    device = choose("cpu")
    settings = FineTuneSettings(
        preset="custom", steps=steps, seconds=1e6, semantic=True, seed=fold.number
    )
    images, labels = fold.annotated(share)
    given = partial_images(images, labels)
    whole = partial_images(*fold.annotated(1.0))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        tuned = svpseg.finetune(
            images,
            labels,
            start_from=model,
            device="cpu",
            settings=settings,
            names=[image.name for image in given],
            output=work / "first",
        )
        first, prompts = load_model(tuned.model).network, fold.prompts()
        scale = network_scale(prompts, first)

        def plain(name: str, pictures: list[PartialImage]) -> PromptSegmenter:
            return train_plain(
                pictures, prompts, scale, settings, device, work / name
            ).eval()

        makers: list[Callable[[], PromptSegmenter]] = [
            lambda: plain("parts", given),
            lambda: first,
            lambda: train_student(
                first,
                prompts,
                given,
                settings,
                device,
                work / "second",
                lambda: False,
                lambda *_: None,
            ).eval(),
            lambda: plain("whole", whole),
        ]
        return {
            arm: fold.score(make(), prompts, device)
            for arm, make in zip(ARMS, makers, strict=True)
        }


def main() -> None:
    """Make the missing records and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--json", type=Path, default=Path("partially-supervised.json"))
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--model", default="svp-attention")
    given = parser.parse_args()
    done = {
        (r["set"], r["fold"], r["share"]): r["dice"]
        for r in read_records(given.json)
        if r["steps"] == given.steps
    }
    for name in SETS:
        dataset = read_dataset(given.data / name)
        for number in range(FOLDS):
            for share in SHARES:
                if (name, number, share) in done:
                    continue
                found = run(Fold(dataset, number), share, given.steps, given.model)
                done[name, number, share] = found
                record = {"set": name, "fold": number, "share": share}
                record |= {"steps": given.steps, "dice": found}
                add_record(given.json, record)
    print(f"\nClass-mean Dice, mean of {FOLDS} folds, {given.steps} steps\n")
    print("| set | annotated | " + " | ".join(ARMS) + " |")
    print("|---|---|" + "---|" * len(ARMS))
    for name in SETS:
        for share in SHARES:
            folds = [done[name, number, share] for number in range(FOLDS)]
            cells = [f"{np.mean([f[arm] for f in folds]):.3f}" for arm in ARMS]
            print(f"| {name} | 1/{round(1 / share)} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
