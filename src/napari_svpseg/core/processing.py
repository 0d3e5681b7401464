"""The processing steps that descriptions of bioimage.io name, in NumPy.

A step is ``{"id": name, "kwargs": {...}}``, in the words of specification 0.5. Arrays
have the channels last. Statistics are those of a whole image, so that its tiles are
treated alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray
Step = Mapping[str, Any]
Change = Callable[[Array], Array]

UNKNOWN_STEP = "the step '{name}' is not known here"
OTHER_AXES = "the step '{name}' over the axes {axes} is not known here"
OTHER_TENSOR = "the step '{name}' refers to another tensor, which is not known here"


class StepError(ValueError):
    """A step that cannot be done here; the message names it."""


def fitted(step: Step, pixels: Array) -> Change:
    """Return a step as a function, with the statistics of an image.

    Parameters
    ----------
    step : dict
    pixels : (N, C) float64 array
        Pixels of the whole image, after the steps before this one.

    Returns
    -------
    callable
        From a float64 array (..., C) to one.

    Raises
    ------
    StepError
        If the step is not known.
    """
    name, kwargs = str(step.get("id")), dict(step.get("kwargs") or {})
    make = STEPS.get(name)
    if make is None:
        raise StepError(UNKNOWN_STEP.format(name=name))
    if kwargs.get("reference_tensor") is not None:
        raise StepError(OTHER_TENSOR.format(name=name))
    axes, along = kwargs.get("axes"), kwargs.get("axis", "channel")
    known = axes is None or {"y", "x"} <= set(axes) <= {"batch", "channel", "y", "x"}
    if not known or along != "channel":
        raise StepError(OTHER_AXES.format(name=name, axes=axes or along))
    if axes is None or "channel" in axes:  # all channels together
        pixels = pixels.reshape(-1, 1)
    return make(kwargs, pixels)


class Preparation:
    """Steps that bring the intensities of one image to what a network takes.

    Parameters
    ----------
    steps : sequence of dict
    pixels : (N, C) array
        Of the whole image. NaN and infinite pixels count as the darkest finite one.
    """

    def __init__(self, steps: Sequence[Step], pixels: Array) -> None:
        known = np.where(np.isfinite(pixels), pixels, np.inf).min(0)
        self._dark = np.where(np.isfinite(known), known, 0).astype(np.float64)
        self._changes: list[Change] = []
        values = self._complete(pixels)
        for step in steps:
            change = fitted(step, values)
            values = change(values)
            self._changes.append(change)

    def __call__(self, piece: Array) -> Array:
        """Return a piece (Y, X, C) of the image, prepared, as float32."""
        values = self._complete(piece)
        for change in self._changes:
            values = change(values)
        return values.astype(np.float32)

    def _complete(self, values: Array) -> Array:
        values = values.astype(np.float64)
        return np.where(np.isfinite(values), values, self._dark)


def applied(steps: Sequence[Step], values: Array) -> Array:
    """Return an array (..., C) after steps that need no statistics.

    Raises
    ------
    StepError
        For a step that needs some, as its result would differ from tile to tile.
    """
    values = values.astype(np.float64)
    for step in steps:
        if step.get("id") in OF_WHOLE_IMAGES:
            raise StepError(UNKNOWN_STEP.format(name=step.get("id")))
        values = fitted(step, values[..., :0].reshape(0, 0))(values)
    return values


def _binarize(kwargs: dict[str, Any], pixels: Array) -> Change:
    threshold = np.asarray(kwargs["threshold"], np.float64)
    return lambda x: (x > threshold).astype(np.float64)


def _clip(kwargs: dict[str, Any], pixels: Array) -> Change:
    low, high = kwargs.get("min"), kwargs.get("max")
    if kwargs.get("min_percentile") is not None:
        low = np.percentile(pixels, kwargs["min_percentile"], axis=0)
    if kwargs.get("max_percentile") is not None:
        high = np.percentile(pixels, kwargs["max_percentile"], axis=0)
    return lambda x: np.clip(x, low, high)


def _ensure_dtype(kwargs: dict[str, Any], pixels: Array) -> Change:
    dtype = np.dtype(kwargs["dtype"])
    if dtype.kind not in "iu":
        return lambda x: x.astype(dtype).astype(np.float64)
    ends = np.iinfo(dtype)
    return lambda x: np.trunc(np.clip(x, ends.min, ends.max))


def _fixed(kwargs: dict[str, Any], pixels: Array) -> Change:
    mean, std = (np.asarray(kwargs[k], np.float64) for k in ("mean", "std"))
    return lambda x: (x - mean) / (std + kwargs.get("eps", 0.0))


def _scale_linear(kwargs: dict[str, Any], pixels: Array) -> Change:
    gain = np.asarray(kwargs.get("gain", 1.0), np.float64)
    offset = np.asarray(kwargs.get("offset", 0.0), np.float64)
    return lambda x: x * gain + offset


def _scale_range(kwargs: dict[str, Any], pixels: Array) -> Change:
    ends = kwargs.get("min_percentile", 0.0), kwargs.get("max_percentile", 100.0)
    low, high = np.percentile(pixels, ends, axis=0)
    return lambda x: (x - low) / (high - low + kwargs.get("eps", 1e-6))


def _zero_mean(kwargs: dict[str, Any], pixels: Array) -> Change:
    mean, std = pixels.mean(0), pixels.std(0)
    return lambda x: (x - mean) / (std + kwargs.get("eps", 1e-6))


def _sigmoid(kwargs: dict[str, Any], pixels: Array) -> Change:
    from scipy.special import expit

    return lambda x: np.asarray(expit(x))


def _softmax(kwargs: dict[str, Any], pixels: Array) -> Change:
    from scipy.special import softmax

    return lambda x: np.asarray(softmax(x, axis=-1))


STEPS: dict[str, Callable[[dict[str, Any], Array], Change]] = {
    "binarize": _binarize,
    "clip": _clip,
    "ensure_dtype": _ensure_dtype,
    "fixed_zero_mean_unit_variance": _fixed,
    "scale_linear": _scale_linear,
    "scale_range": _scale_range,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
    "zero_mean_unit_variance": _zero_mean,
}
"""The steps that are known, by the words of the specification."""

OF_WHOLE_IMAGES = ("scale_range", "zero_mean_unit_variance")
"""Steps with statistics of a whole image."""
