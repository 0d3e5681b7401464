"""The description in a package of bioimage.io, in the words of specification 0.5."""

from __future__ import annotations

import json
from typing import Any


def parsed(text: bytes) -> Any:
    """Return the content of a YAML or JSON file."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def modern(about: dict[str, Any]) -> dict[str, Any]:
    """Return a description of specification 0.4 in the words of 0.5."""
    new = dict(about)
    for key, tests in (("inputs", "test_inputs"), ("outputs", "test_outputs")):
        new[key] = [
            _modern_tensor(tensor, test)
            for tensor, test in zip(about[key], about[tests], strict=True)
        ]
    return new


def _modern_tensor(tensor: dict[str, Any], test: Any) -> dict[str, Any]:
    letters, shape = str(tensor["axes"]), tensor.get("shape")
    axes: list[dict[str, Any]] = []
    for i, letter in enumerate(letters):
        if letter == "b":
            axes.append({"type": "batch"})
            continue
        size: Any = {"min": 1, "step": 1}
        if isinstance(shape, list):
            size = shape[i]
        elif shape and "min" in shape:
            size = {"min": shape["min"][i], "step": shape["step"][i]}
            size = size if size["step"] else size["min"]
        elif letter == "c" and shape:  # of an output: twice the offset
            size = round(2 * shape["offset"][i])
        if letter == "c":
            axes.append({"type": "channel", "channel_names": [""] * int(size)})
        else:
            kind = "space" if letter in "zyx" else "index"
            axes.append({"type": kind, "id": letter, "size": size})
        halo = tensor.get("halo")
        if halo and halo[i]:
            axes[-1]["halo"] = halo[i]
    steps = {
        key: [_modern_step(step) for step in tensor.get(key) or []]
        for key in ("preprocessing", "postprocessing")
    }
    data = {"type": tensor.get("data_type"), "range": tensor.get("data_range")}
    name = tensor.get("name", "")
    return {"id": name, "axes": axes, "test_tensor": test, "data": data, **steps}


def _modern_step(step: dict[str, Any]) -> dict[str, Any]:
    kwargs = dict(step.get("kwargs") or {})
    name, mode = step["name"], kwargs.pop("mode", "per_sample")
    if mode == "per_dataset":
        raise ValueError(f"{name} with statistics of a whole data set")
    if mode == "fixed":
        name = "fixed_zero_mean_unit_variance"
    axes = kwargs.pop("axes", None)
    if axes and mode != "fixed" and name != "scale_linear":
        kwargs["axes"] = ["channel" if a == "c" else a for a in axes]
    return {"id": name, "kwargs": kwargs}
