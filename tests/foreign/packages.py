"""Packages of bioimage.io as other programs write them, made with ONNX and PyTorch.

Run as a program, it writes one of each kind into a folder.
"""

from __future__ import annotations

import hashlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import yaml
from onnx import TensorProto, helper
from PIL import Image

SIDE = 96
RAYS = 16


def discs(side=SIDE, touching=False):
    """Return intensities (Y, X) of bright discs, and their labels."""
    y, x = np.mgrid[:side, :side]
    pitch = 22 if touching else 30
    near = np.hypot(y % pitch - pitch / 2, x % pitch - pitch / 2)
    inside = near < 11
    labels = np.where(inside, y // pitch * 100 + x // pitch + 1, 0)
    noise = np.random.default_rng(3).normal(0, 12, labels.shape)
    return (200 + 500 * inside + noise).astype(np.float32), labels


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def onnx_graph(
    nodes, outputs, constants=(), channels=1, side=("h", "w"), axes="bcyx", kind="FLOAT"
):
    """Return an ONNX file with the input ``x``."""
    sizes = {"b": "b", "c": channels, "y": side[0], "x": side[1]}
    image = helper.make_tensor_value_info(
        "x", getattr(TensorProto, kind), [sizes[a] for a in axes]
    )
    found = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, list("nchw"))
        for name in outputs
    ]
    held = [
        helper.make_tensor(n, TensorProto.FLOAT, np.shape(v), np.ravel(v).tolist())
        for n, v in constants
    ]
    graph = helper.make_graph(nodes, "g", [image], found, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model.SerializeToString()


def bright(middle=0.5, gain=20.0, **rest):
    """Return ONNX that gives the probability of being brighter than ``middle``."""
    nodes = [
        helper.make_node("Sub", ["x", "middle"], ["a"]),
        helper.make_node("Mul", ["a", "gain"], ["b"]),
        helper.make_node("Sigmoid", ["b"], ["y"]),
    ]
    held = [("middle", np.float32(middle)), ("gain", np.float32(gain))]
    return onnx_graph(nodes, ["y"], held, **rest)


def foreground_and_boundary():
    """Return ONNX with the channels foreground and boundary: its smoothed edge."""
    pool = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Sub", ["x", "middle"], ["a"]),
        helper.make_node("Mul", ["a", "gain"], ["b"]),
        helper.make_node("Sigmoid", ["b"], ["f"]),
        helper.make_node("MaxPool", ["f"], ["most"], **pool),
        helper.make_node("Neg", ["f"], ["minus"]),
        helper.make_node("MaxPool", ["minus"], ["least"], **pool),
        helper.make_node("Add", ["most", "least"], ["edge"]),
        helper.make_node("Concat", ["f", "edge"], ["y"], axis=1),
    ]
    held = [("middle", np.float32(0.5)), ("gain", np.float32(20))]
    return onnx_graph(nodes, ["y"], held)


class Softmax(torch.nn.Module):
    """Two classes by brightness, and background."""

    def forward(self, x):
        dark, middle, light = (
            -40 * (x - 0.1),
            40 * (x - 0.3) * (0.9 - x),
            60 * (x - 0.8),
        )
        return torch.softmax(torch.cat([dark, middle, light], 1), 1)


def torchscript(module, channels=1):
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(module, torch.rand(1, channels, SIDE, SIDE)), buffer)
    return buffer.getvalue()


class Stars(torch.nn.Module):
    """Probability and distances of discs of radius 11 on a grid of 30 pixels."""

    def __init__(self, grid=1):
        super().__init__()
        self.grid = grid

    def forward(self, x):
        g = self.grid
        h, w = x.shape[2] // g, x.shape[3] // g
        y, x0 = torch.meshgrid(torch.arange(h) * g, torch.arange(w) * g, indexing="ij")
        dy, dx = (a.float() % 30 - 15 for a in (y, x0))
        near = (dy**2 + dx**2).sqrt()
        angles = torch.arange(RAYS) * (2 * torch.pi / RAYS)
        along = (
            dy * torch.sin(angles)[:, None, None]
            + dx * torch.cos(angles)[:, None, None]
        )
        reach = -along + (along**2 + 121 - near**2).clamp(min=0).sqrt()
        prob = (1 - near / 11).clamp(0, 1)
        return torch.cat([prob[None], reach])[None] + 0 * x.sum()


def test_output(form, graph, given):
    """Return the outputs of a graph."""
    if form == "onnx":
        session = onnxruntime.InferenceSession(graph)
        return session.run(None, {"x": given})
    found = torch.jit.load(io.BytesIO(graph))(torch.from_numpy(given))
    return [found.numpy()]


def axis(letter, size, halo=0):
    if letter == "b":
        return {"type": "batch", "size": 1}
    if letter == "c":
        return {"type": "channel", "channel_names": list(size)}
    return {"type": "space", "id": letter, "size": size} | (
        {"halo": halo} if halo else {}
    )


def laid(stack, axes):
    """Return an image (C, Y, X) with other axes."""
    missing = [a for a in "bc" if a not in axes]
    order = ["bcyx".index(a) for a in (*missing, *axes)]
    moved = stack[None].transpose(order)
    return np.ascontiguousarray(moved[(0,) * len(missing)])


def described(
    image, graph, prepared, after, *, form="onnx", axes="bcyx", names=("foreground",),
    size=None, steps=(), ends=(), halo=0, grid=1, **more
):  # fmt: skip
    """Return the files of a package, as a dict from names to bytes.

    Parameters
    ----------
    image : (Y, X) or (C, Y, X) array
    graph : bytes
    prepared, after : callable
        The steps in NumPy: of the image (C, Y, X), and of an output.
    """
    stack = image if image.ndim == 3 else image[None]
    raw, given = laid(stack, axes), laid(prepared(stack).astype(np.float32), axes)
    (found,) = test_output(form, graph, given)
    size = size or {"min": 16, "step": 16}
    channels = [f"channel{i}" for i in range(len(stack))]
    here = {"tensor_id": "x", "axis_id": None}
    sizes = {"b": 1, "c": channels, "y": size, "x": size}
    scale = {"scale": float(grid)} if grid > 1 else {}
    files = {"x.npy": npy(raw), "y.npy": npy(after(found))}
    files["README.md"] = b"# Test\n\n## Validation\n\nNone.\n"
    picture = io.BytesIO()
    Image.new("RGB", (64, 32), "teal").save(picture, "PNG")
    files["cover.png"] = picture.getvalue()
    weights = "model.onnx" if form == "onnx" else "model.pt"
    files[weights] = graph
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    tests = [{"source": n, "sha256": sums[n]} for n in ("x.npy", "y.npy")]
    about = {"opset_version": 18} if form == "onnx" else {"pytorch_version": "2.0"}
    out_axes = [
        axis(a, names) if a == "c"
        else axis(a, 1) if a == "b"
        else axis(a, {**here, "axis_id": a}, halo) | scale
        for a in axes
    ]  # fmt: skip
    rdf = {
        "format_version": "0.5.4", "type": "model", "name": "a test model",
        "description": "Finds bright discs", "authors": [{"name": "A. B."}],
        "license": "MIT", "documentation": {"source": "README.md"},
        "cite": [{"text": "A paper", "doi": "10.1000/182"}],
        "covers": [{"source": "cover.png"}], "tags": [],
        "inputs": [{
            "id": "x", "axes": [axis(a, sizes[a]) for a in axes],
            "data": {"type": "float32"}, "preprocessing": list(steps),
            "test_tensor": tests[0],
        }],
        "outputs": [{
            "id": "y", "axes": out_axes, "data": {"type": "float32"},
            "postprocessing": list(ends), "test_tensor": tests[1],
        }],
        "weights": {
            "onnx" if form == "onnx" else "torchscript":
            {"source": weights, "sha256": sums[weights], **about}
        },
        **more,
    }  # fmt: skip
    files["rdf.yaml"] = yaml.safe_dump(rdf, sort_keys=False).encode()
    return files


def write(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def scale(image, low=1.0, high=99.8, axes=(1, 2), eps=1e-6):
    ends = np.percentile(
        image.astype(np.float64), [low, high], axis=axes, keepdims=True
    )
    return (image - ends[0]) / (ends[1] - ends[0] + eps)


def same(array):
    return array


SCALE = {
    "id": "scale_range",
    "kwargs": {"axes": ["y", "x"], "min_percentile": 1, "max_percentile": 99.8},
}


def softmax_package():
    """Return a package of TorchScript with two classes and background."""
    image = discs()[0]
    image[:, SIDE // 2 :] *= 2  # the discs there are the brighter class
    return described(
        image, torchscript(Softmax()), lambda s: scale(s, 5, 100, None), same,
        form="torchscript", names=("background", "dim cell", "bright cell"),
        steps=[{
            "id": "scale_range",
            "kwargs": {"min_percentile": 5, "axes": ["channel", "y", "x"]},
        }],
    )  # fmt: skip


def star_package(grid=1, **more):
    """Return a package of a network of polygons."""
    return described(
        discs()[0], torchscript(Stars(grid)), same, same, form="torchscript",
        names=("probability", *(f"dist{i}" for i in range(RAYS))), grid=grid, **more,
    )  # fmt: skip


def boundary_package(**more):
    """Return a package with foreground and boundary of touching objects."""
    return described(
        discs(touching=True)[0], foreground_and_boundary(), scale, same,
        names=("foreground", "boundary"), steps=[SCALE], halo=16,
        size={"min": 64, "step": 16}, **more,
    )  # fmt: skip


def one_package(**more):
    """Return a package with one channel, the probability of an object."""
    return described(discs()[0], bright(), scale, same, steps=[SCALE], **more)


ALL = {
    "one": one_package,
    "softmax": softmax_package,
    "boundary": boundary_package,
    "stars": star_package,
}

if __name__ == "__main__":
    for name, make in ALL.items():
        write(Path(sys.argv[1], f"{name}.zip"), make())
