"""Train a smaller network on what a larger one finds.

    python benchmarks/distillation.py CONFIG DATA -o FOLDER [--teacher svp] [--resume]

The config is that of `svpseg train`, such as ``configs/svp-small.toml``. To its loss is
added that of the teacher's maps, as cross-entropy at every pixel, known or not. Then
compare both with
``python benchmarks/more_boxes.py DATA... --models svp,FOLDER``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_svpseg.engine.training.trainer import Trainer, episode_maps
from napari_svpseg.io.model_store import load_model
from napari_svpseg.workflows.training import train_from_config

MAPS = ("foreground", "distance", "boundary")


def main() -> None:
    """Train, and write the model folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("data", type=Path, help="folder that holds the data sets")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--teacher", default="svp", help="name or folder")
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    teacher = load_model(options.teacher).network.eval().requires_grad_(False)

    def loss(trainer: Trainer, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        maps, parts = episode_maps(trainer.network, batch)
        with torch.no_grad():
            code = teacher.encode_prompts(batch["prompts"], batch["masks"])
            taught = teacher(batch["query"], code)
        for name in MAPS:
            parts[f"taught_{name}"] = F.binary_cross_entropy_with_logits(
                maps[name].float(), taught[name].float().sigmoid()
            )
        return parts

    Trainer._loss = loss  # type: ignore[method-assign]
    train_from_config(
        options.config, data=options.data, output=options.output, resume=options.resume
    )


if __name__ == "__main__":
    main()
