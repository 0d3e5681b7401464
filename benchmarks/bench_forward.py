"""Core-seconds of a network for one tile on one thread, the prompt encoded before.

    python benchmarks/bench_forward.py --model svp --side 512

Prints the minimum of several rounds, because other programs can only add to it.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.engine.inference.device import choose
from napari_svpseg.engine.inference.forward import Forward, evaluating
from napari_svpseg.engine.inference.prompt_features import prompt_tensors
from napari_svpseg.engine.jobs.allocator import keep_freed_memory
from napari_svpseg.io.model_store import load_model

ROUNDS = 15


def discs(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of discs with noise, and its labels."""
    y, x = np.mgrid[:side, :side]
    inside = (y % 28 - 14) ** 2 + (x % 28 - 14) ** 2 < 81
    labels = np.where(inside, 1 + y // 28 * side + x // 28, 0)
    noise = np.random.default_rng(0).normal(0.2, 0.03, inside.shape)
    return (noise + 0.5 * inside).astype(np.float32), labels


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="svp")
    parser.add_argument("--side", type=int, default=512)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    image, labels = discs(options.side)
    prompts = PromptSet([Prompt.from_image(image, labels, (28, 28))])
    network, device = load_model(options.model).network, choose("cpu")
    forward = Forward(network, device)
    piece = torch.from_numpy(image).expand(1, 3, -1, -1).contiguous()
    spent = []
    with evaluating(network, device):
        code = forward.encode(*prompt_tensors(prompts, 1.0))
        for _ in range(ROUNDS):
            start = time.thread_time()
            forward(piece, code)
            spent.append(time.thread_time() - start)
    least = min(spent)
    print(
        f"{options.model}: {1000 * least:.0f} ms a tile of {options.side} x "
        f"{options.side}, {least / image.size * 1e6:.2f} core-seconds a megapixel"
    )


if __name__ == "__main__":
    main()
