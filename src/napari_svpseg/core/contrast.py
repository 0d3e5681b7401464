"""The range of intensities that a network is shown, judged against the prompts.

The 1st and the 99.8th percentile of a whole image are its range, unless what decides
them is untypical: a piece of dirt, an almost empty field, or the other frames of a
movie that bleaches. Of such an image other ranges are candidates, and the one that
resembles the range of the prompts is taken. Everything follows from a small table of
percentiles, so that the range does not depend on tiles or workers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .image import HIGH_PERCENTILE, LOW_PERCENTILE, is_flat

if TYPE_CHECKING:
    from .prompt import Prompt

LEVELS = (
    0.0, LOW_PERCENTILE, 2.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0,
    99.5, HIGH_PERCENTILE, 99.9, 99.95, 99.98, 100.0,
)  # fmt: skip
"""Percentiles that are kept of each channel."""

UNLIKE = 3.0
"""Ratio of the ranges of image and prompts up to which nothing is questioned.

Of 51 data sets of `benchmark`, the ranges of images of one set differ less than this in
all but one.
"""

DETACHED, DETACHED_DARK, DETACHED_PROMPT = 4.0, 6.0, 8.0
"""How much wider untypical pixels make a range. At the dark end it is more, as dark
objects may be few; and where a prompt is cut, as no prompt can confirm it."""

STABLE = 1.4
"""How much a range may change when as many pixels again are left out."""

GAIN, NEAR, AGREES = 2.5, 5.0, 1.5
"""How much nearer to the prompts' range another one has to be, how near, and from where
it agrees with it."""

LEFT_OUT = (
    (0.5, 1.0, "high"), (1.0, 2.0, "high"), (2.0, 5.0, "high"), (2.0, 5.0, "low"),
    (5.0, 10.0, "high"), (5.0, 10.0, "low"), (10.0, 25.0, "low"),
)  # fmt: skip
"""Percent of the pixels that are left out of a range, and of those that are left out to
see whether it is stable; at which end."""

DRIFT = 1.5
"""Ratio of the ranges of frame and movie from which frames have ranges of their own."""

MAX_SHIFT = 0.5
"""Largest difference of two dark levels that are one, in ranges of the prompts."""

NOISE_SKEW, NOISE_WIDTH = (0.6, 2.0), (3.2, 6.0)
"""What a field of noise has: upper by lower half of the range, and range by the middle
half of the pixels. Those of Gaussian noise are 1.2 and 3.9."""

REST_WIDTH = 2.2
"""The same as the smaller `NOISE_WIDTH`, of noise without its brightest tenth."""

CLEAR = 0.3
"""Contrast of the prompts' objects, in ranges, from which their absence is told."""

NOTE_FROM = 5.0
"""Ratio of the ranges of image and prompts that is worth a note."""

TRIMMED = (
    "the contrast leaves out the {share:g} % of the pixels that are far {than} than "
    "all others"
)
FEW = "few pixels are as {than} as the prompts' objects: their contrast is used here"
EMPTY = "no pixel is as {than} as the prompts' objects: their contrast is used here"
NOT_ALIKE = (
    "intensities ({low:.4g} to {high:.4g}) do not resemble those of the prompts "
    "({prompt_low:.4g} to {prompt_high:.4g}): check the result"
)
SOME_NOT_ALIKE = "{n} of {total} planes: {note}"
DRIFTING = "the intensities drift: each time has a contrast of its own"

Array = np.ndarray


def percentile_table(pixels: Array) -> Array:
    """Return the percentiles `LEVELS` of each channel.

    Parameters
    ----------
    pixels : (N, C) array
        NaN and infinite pixels are ignored.

    Returns
    -------
    (C, L) float64 array
        0 for a channel without a finite pixel.
    """
    rows = []
    for channel in pixels.T:
        # float64, as a percentile of float16 or of large integers would be rounded
        values = channel[np.isfinite(channel)].astype(np.float64)
        rows.append(
            np.percentile(values, LEVELS) if values.size else np.zeros(len(LEVELS))
        )
    return np.asarray(rows)


def plain_range(table: Array) -> Array:
    """Return the range (..., C, 2) that no prompt has judged."""
    columns = [LEVELS.index(LOW_PERCENTILE), LEVELS.index(HIGH_PERCENTILE)]
    return np.asarray(table[..., columns])


@dataclass(frozen=True)
class Contrast:
    """A range of intensities, and why it is not the plain one.

    Parameters
    ----------
    intensities : (C, 2) array
    notes : tuple of str
    """

    intensities: Array
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Profile:
    """Percentiles of a whole image, and of the times of a movie.

    Parameters
    ----------
    whole : (C, L) array
        Of all planes together, see `percentile_table`.
    n_pixels : int
        Of a plane.
    times : tuple of int
        Times that were measured, evenly spread.
    of_times : (T, C, L) array
        Of each of them.
    """

    whole: Array
    n_pixels: int
    times: tuple[int, ...] = ()
    of_times: Array | None = None

    @property
    def drifts(self) -> bool:
        """Whether the level of a movie changes so much that times differ in range."""
        return self._in_time() is not None

    def at(self, time: int | None) -> Profile:
        """Return the profile of one time of a movie that drifts, else the whole."""
        tables = self._in_time()
        if time is None or tables is None:
            return Profile(self.whole, self.n_pixels)
        flat = tables.reshape(len(tables), -1)
        # between measured times, intensities change gradually
        here = [np.interp(time, self.times, column) for column in flat.T]
        return Profile(np.reshape(here, self.whole.shape), self.n_pixels)

    def range_at(self, time: int | None, crop: Array | None = None) -> Array:
        """Return the range (C, 2) for a prompt that is cut out of the image."""
        table = self.at(time).whole
        return plain_range(table) if crop is None else range_of_prompt(table, crop)

    def _in_time(self) -> Array | None:
        """Return a table for each measured time, or None where one serves all.

        Times without signal, whose noise would be stretched, get that of the nearest
        time with signal.
        """
        if self.of_times is None or len(self.times) < 2:
            return None
        empty = _is_noise(self.of_times) | is_flat(plain_range(self.of_times))
        signal = ~empty.all(axis=1)
        if not signal.any():
            return None
        shared, own = plain_range(self.whole), plain_range(self.of_times)[signal]
        width = np.diff(shared, axis=1)[:, 0]
        if not (width > 0).all():
            return None
        ratio = np.diff(own, axis=2)[..., 0] / width
        shift = np.abs(own[..., 0] - shared[:, 0]) / width
        if ((ratio <= DRIFT) & (ratio >= 1 / DRIFT) & (shift <= MAX_SHIFT)).all():
            return None
        known = np.flatnonzero(signal)
        nearest = np.abs(known - np.arange(len(signal))[:, None]).argmin(axis=1)
        return np.asarray(self.of_times[known[nearest]])


def contrast_for(profile: Profile, prompts: Iterable[Prompt]) -> Contrast:
    """Return the range of an image that resembles the prompts' ranges most.

    Parameters
    ----------
    profile : Profile
        Of the image, or of one time of it.
    prompts : iterable of Prompt
        Their ranges, and the intensities of their objects and background. Without any,
        and for colours, the plain range is returned.
    """
    shown = [p for p in prompts if not p.is_negative and not p.rgb]
    plain = plain_range(profile.whole)
    if not shown:
        return Contrast(plain)
    chosen, notes = plain.copy(), dict[str, None]()
    for c, row in enumerate(profile.whole):
        low, high, note = _judged(row, [_Reference.of(p, c) for p in shown], profile)
        chosen[c] = low, high
        notes |= dict.fromkeys(note)
    return Contrast(chosen, tuple(notes))


def range_of_prompt(table: Array, crop: Array) -> Array:
    """Return the range of the image that a prompt is cut from, judged by the crop.

    Parameters
    ----------
    table : (C, L) array
        Of the whole image.
    crop : (..., C) array
        Of a prompt, or all pixels of labelled objects.
    """
    chosen = plain_range(table).copy()
    for c, row in enumerate(table):
        values = crop[..., c]
        values = values[np.isfinite(values)].astype(np.float64)
        if not values.size:
            continue
        low, high = chosen[c]
        top, bottom = np.percentile(values, [HIGH_PERCENTILE, LOW_PERCENTILE])
        for end, (one, other) in (
            ("high", (low, float(top))),
            ("low", (float(bottom), high)),
        ):
            found = _trimmed(row, other - one, DETACHED_PROMPT, (end,))
            if found is not None:
                chosen[c] = found[:2]
    return chosen


def alike_notes(ranges: Sequence[Array], prompts: Iterable[Prompt]) -> list[str]:
    """Return a note where the ranges of planes do not resemble those of the prompts.

    Parameters
    ----------
    ranges : sequence of (C, 2) arrays
        One for each plane.
    prompts : iterable of Prompt
    """
    shown = [p for p in prompts if not p.is_negative]
    odd = [note for one in ranges if (note := _unlike(one, shown))]
    if not odd:
        return []
    if len(odd) == len(ranges) == 1:
        return odd
    return [SOME_NOT_ALIKE.format(n=len(odd), total=len(ranges), note=odd[0])]


def _unlike(one: Array, shown: Sequence[Prompt]) -> str:
    for c, (low, high) in enumerate(one):
        theirs = [tuple(p.intensities[c]) for p in shown if c < len(p.intensities)]
        near = [_distance(high - low, b - a) for a, b in theirs]
        if near and math.log(NOTE_FROM) < min(near) < math.inf:
            a, b = theirs[int(np.argmin(near))]
            return NOT_ALIKE.format(low=low, high=high, prompt_low=a, prompt_high=b)
    return ""


# ---------------------------------------------------------------- judging candidates


@dataclass(frozen=True)
class _Reference:
    """What is known of the intensities of a prompt, in one channel.

    Parameters
    ----------
    low, high : float
        Range of the image that it was cut from.
    objects, background : float
        Typical intensities.
    noise : float
        Range of the background.
    area : float
        Of an object, in pixels of the image.
    """

    low: float
    high: float
    objects: float
    background: float
    noise: float
    area: float

    @classmethod
    def of(cls, prompt: Prompt, channel: int) -> _Reference:
        """Return the reference of a prompt that shows objects."""
        values, inside = prompt.image[..., channel], prompt.mask > 0
        low, high = (float(n) for n in prompt.intensities[channel])
        around = values[prompt.mask == 0]
        around = around if around.size else values
        bottom, middle, top = np.percentile(around, [2, 50, 98])
        area = np.count_nonzero(inside) / max(1, prompt.n_objects)
        return cls(
            low,
            high,
            float(np.median(values[inside])),
            float(middle),
            float(top - bottom),
            area / prompt.box.scale**2,
        )


def _judged(
    row: Array, references: Sequence[_Reference], profile: Profile
) -> tuple[float, float, tuple[str, ...]]:
    """Return low, high and notes of a channel with the percentiles ``row``."""
    low, high = (float(n) for n in plain_range(row))
    width = high - low
    reference = min(references, key=lambda r: _distance(width, r.high - r.low))
    theirs = reference.high - reference.low
    if not _distance(width, theirs) > math.log(UNLIKE):
        return low, high, ()
    if width > theirs:
        clear = abs(reference.objects - reference.background) >= CLEAR * theirs
        found = _trimmed(row, theirs, DETACHED, ("high", "low"), clear=clear)
        if found is not None:
            return found[0], found[1], (TRIMMED.format(share=found[2], than=found[3]),)
        return low, high, ()
    return _widened(row, reference, profile.n_pixels) or (low, high, ())


def _trimmed(
    row: Array,
    wanted: float,
    detached: float,
    ends: tuple[str, ...],
    *,
    clear: bool = False,
) -> tuple[float, float, float, str] | None:
    """Return a range without untypical pixels, their share in percent, and their kind.

    They are few, far from all others, and the range without them is much nearer to the
    wanted one. If it does not agree with it, it has to stay if as many pixels again are
    left out.

    Parameters
    ----------
    row : (L,) array
    wanted : float
        Width of a range that is typical.
    detached : float
    ends : tuple of str
        Which of the brightest (high) and the darkest (low) pixels may be untypical.
    clear : bool
        Objects stand out of the background, so that noise alone shows none.
    """
    low, high = plain_range(row)
    at = dict(zip(LEVELS, row, strict=True))
    before = _distance(high - low, wanted)
    limits = {"high": detached, "low": max(detached, DETACHED_DARK)}
    for share, more, end in LEFT_OUT:
        bright = end == "high"
        level, further = (100 - share, 100 - more) if bright else (share, more)
        new = (low, at[level]) if bright else (at[level], high)
        rest = at[further] - low if bright else high - at[further]
        width = new[1] - new[0]
        after = _distance(width, wanted)
        if (
            end not in ends
            or not 0 < width * limits[end] <= high - low
            or after > min(math.log(NEAR), before - math.log(GAIN))
        ):
            continue
        # what is left of an image that is only brighter is its background
        is_left = width <= STABLE * rest and not (clear and _is_rest(row, *new))
        if is_left or after <= math.log(AGREES):
            than = "brighter" if bright else "darker"
            return float(new[0]), float(new[1]), share, than
    return None


def _widened(
    row: Array, reference: _Reference, n_pixels: int
) -> tuple[float, float, tuple[str, ...]] | None:
    """Return the prompts' contrast for an image that is almost or wholly empty.

    Its own range would stretch the noise until it looks like objects. None for an image
    that is only darker: one with a contrast of its own, or of another offset.
    """
    low, high = (float(n) for n in plain_range(row))
    theirs = reference.high - reference.low
    contrast = reference.objects - reference.background
    median = float(row[LEVELS.index(50.0)])
    if abs(contrast) < CLEAR * theirs or (
        abs(median - reference.background) > MAX_SHIFT * abs(contrast)
    ):
        return None
    if not _is_noise(row[None]).all() or high - low > 2 * reference.noise:
        return None
    bright = contrast > 0
    than = "bright" if bright else "dark"
    wide = (low, reference.high) if bright else (reference.low, high)
    # share of the pixels that are nearer to the objects than to the background
    limit = (reference.objects + reference.background) / 2
    below = float(np.interp(limit, row, LEVELS)) / 100
    n = n_pixels * (1 - below if bright else below)
    note = FEW if n >= reference.area / 4 else EMPTY
    return *wide, (note.format(than=than),)


def _is_rest(row: Array, low: float, high: float) -> bool:
    """Return whether the pixels in a part of a range are noise alone."""
    quarter, median, three = (row[LEVELS.index(n)] for n in (25.0, 50.0, 75.0))
    return bool(
        high - median <= NOISE_SKEW[1] * (median - low)
        and high - low >= REST_WIDTH * (three - quarter)
    )


def _is_noise(table: Array) -> Array:
    """Return whether each channel (..., C, L) is distributed like noise alone."""
    low, high = np.moveaxis(plain_range(table), -1, 0)
    quarter, median, three = (
        table[..., LEVELS.index(level)] for level in (25.0, 50.0, 75.0)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        skew = (high - median) / (median - low)
        width = (high - low) / (three - quarter)
    return np.asarray(
        (skew >= NOISE_SKEW[0])
        & (skew <= NOISE_SKEW[1])
        & (width >= NOISE_WIDTH[0])
        & (width <= NOISE_WIDTH[1])
    )


def _distance(one: float, two: float) -> float:
    """Return the logarithm of the ratio of two widths; infinite without a width."""
    return abs(math.log(one / two)) if one > 0 and two > 0 else math.inf
