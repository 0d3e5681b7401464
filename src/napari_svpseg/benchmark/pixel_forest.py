"""The baseline that every biologist has: a random-forest pixel classifier.

It is fitted to what our models get: the 64 x 64 pixels of the prompt, normalised by the
percentiles of the whole source image. A watershed splits touching objects. Needs
scikit-learn, which is in the extra ``benchmark``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.feature import multiscale_basic_features, peak_local_max
from skimage.segmentation import watershed

from ..core.image import normalise
from ..core.labels.ids import compact_ids
from ..core.labels.metrics import match_instances
from ..core.prompt import Prompt, PromptError

N_TREES = 100
SIGMA_MIN, SIGMA_MAX = 0.5, 16.0
NO_PROMPT = "No prompt: the forest needs at least one."
NO_SPLITTING = "no splitting to choose from"
NEEDS_SKLEARN = (
    "The random-forest baseline needs scikit-learn: "
    "pip install 'napari-svpseg[benchmark]'."
)


def pixel_features(image: np.ndarray, n_threads: int = 1) -> np.ndarray:
    """Return intensity, edge and texture features at scales of 0.5 to 16 pixels.

    Parameters
    ----------
    image : (Y, X, C) float32 array
        Normalised intensities, at the scale of the prompt.
    n_threads : int

    Returns
    -------
    (Y, X, 24 C) float32 array
        For each channel and scale: Gaussian, gradient magnitude, two Hessian
        eigenvalues.
    """
    # positional, because the last argument has another name in older scikit-image
    return np.asarray(
        multiscale_basic_features(
            image,
            True,
            True,
            True,
            SIGMA_MIN,
            SIGMA_MAX,
            None,
            n_threads,
            channel_axis=-1,
        ),
        np.float32,
    )


@dataclass(frozen=True)
class Splitting:
    """How a foreground mask is split into objects; lengths in prompt pixels.

    Parameters
    ----------
    method : str
        ``components`` (connected components) or ``watershed`` of the distance to the
        background.
    sigma : float
        Width of the Gaussian that smooths the distance.
    min_distance : float
        Smallest distance between the seeds of two objects.
    min_area : float
        Smaller objects are removed.
    """

    method: str = "components"
    sigma: float = 0.0
    min_distance: float = 0.0
    min_area: float = 0.0

    def __post_init__(self) -> None:
        if self.method not in ("components", "watershed"):
            raise ValueError(
                f"method must be components or watershed, got {self.method!r}"
            )


def split_objects(
    mask: np.ndarray, splitting: Splitting, zoom: float = 1.0
) -> np.ndarray:
    """Return the objects of a foreground mask.

    Parameters
    ----------
    mask : (Y, X) bool array
    splitting : Splitting
    zoom : float
        Pixels of ``mask`` per prompt pixel.

    Returns
    -------
    (Y, X) uint32 array
        Ids from 1, without gaps; 0 = background.
    """
    return next(labels for _, labels in split_ways(mask, [splitting], zoom))


def split_ways(
    mask: np.ndarray, splittings: Iterable[Splitting], zoom: float = 1.0
) -> Iterator[tuple[Splitting, np.ndarray]]:
    """Yield each splitting with its labels; common intermediate results are shared.

    Parameters
    ----------
    mask : (Y, X) bool array
    splittings : iterable of Splitting
    zoom : float
        Pixels of ``mask`` per prompt pixel.
    """
    # computed when first needed and shared: splittings differ in the last step mostly
    distance = components = None
    watersheds: dict[tuple[float, float], np.ndarray] = {}
    for way in splittings:
        if components is None:
            components, _ = ndimage.label(mask)
        if way.method == "components":
            labels = components
        else:
            if distance is None:
                distance = _distance(mask)
            key = (way.sigma, way.min_distance)
            if key not in watersheds:
                watersheds[key] = _watershed(components, distance, way, zoom)
            labels = watersheds[key]
        yield way, _without_small(labels, way.min_area * zoom**2)


def splitting_grid(mask: np.ndarray) -> list[Splitting]:
    """Return the splittings to try for a prompt with the objects of ``mask``.

    Those that remove small objects come first, so that they win ties: a prompt seldom
    shows the false small objects that a whole image has.
    """
    areas = np.bincount(compact_ids(mask).ravel())[1:]
    areas = areas[areas > 0]
    quarter = float(np.median(areas)) / 4 if areas.size else 0.0
    return [
        Splitting(method, sigma, min_distance, min_area)
        for min_area in (quarter, 0.0)
        for method, sigma, min_distance in [
            ("components", 0.0, 0.0),
            *(("watershed", s, d) for s in (1.0, 2.0) for d in (3.0, 5.0, 8.0, 12.0)),
        ]
    ]


def best_splitting(
    mask: np.ndarray,
    truth: np.ndarray,
    ways: Iterable[Splitting],
    zoom: float = 1.0,
    ignore: np.ndarray | None = None,
) -> tuple[Splitting, np.ndarray]:
    """Return the splitting whose objects agree best with the truth, and its labels.

    Parameters
    ----------
    mask : (Y, X) bool array
        Predicted foreground.
    truth : (Y, X) int array
        Ids of the true objects.
    ways : iterable of Splitting
        The first one wins a tie.
    zoom : float
        Pixels of ``mask`` per prompt pixel.
    ignore : (Y, X) bool array, optional
        Pixels that are not scored.

    Returns
    -------
    Splitting, (Y, X) uint32 array
        Best by F1@0.5, then by F1@0.75.
    """
    best: tuple[tuple[float, float], Splitting, np.ndarray] | None = None
    for way, labels in split_ways(mask, ways, zoom):
        score = _agreement(labels, truth, ignore)
        if best is None or score > best[0]:
            best = (score, way, labels)
    if best is None:
        raise ValueError(NO_SPLITTING)
    return best[1], best[2]


def _agreement(
    labels: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None
) -> tuple[float, float]:
    """Return F1 at an IoU threshold of 0.5 and of 0.75."""
    good, very_good = (
        match_instances(labels, truth, iou, ignore).f1 for iou in (0.5, 0.75)
    )
    return good, very_good


def _distance(mask: np.ndarray) -> np.ndarray:
    """Return the distance (Y, X) float32 of each pixel to the background."""
    if mask.all():  # no background at all: what lies outside the image counts as such
        return np.asarray(
            ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1], np.float32
        )
    return np.asarray(ndimage.distance_transform_edt(mask), np.float32)


def _watershed(
    components: np.ndarray, distance: np.ndarray, way: Splitting, zoom: float
) -> np.ndarray:
    """Return the watershed regions (Y, X) of a mask."""
    # smoothed, or every bump of the outline would have a peak of its own
    height = ndimage.gaussian_filter(distance, way.sigma * zoom)
    peaks = peak_local_max(
        height,
        min_distance=max(1, round(way.min_distance * zoom)),
        labels=components,
        exclude_border=False,
    )
    seeds = np.zeros(components.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return np.asarray(watershed(-height, seeds, mask=components > 0))


def _without_small(labels: np.ndarray, min_area: float) -> np.ndarray:
    """Return labels without small objects, renumbered from 1 without gaps."""
    areas = np.bincount(labels.ravel())
    keep = areas >= max(1.0, min_area)
    keep[0] = False  # background
    return np.where(keep, np.cumsum(keep), 0).astype(np.uint32)[labels]


@dataclass(frozen=True, eq=False)
class PixelForest:
    """A random forest fitted to the pixels of prompts.

    Parameters
    ----------
    classifier : sklearn.ensemble.RandomForestClassifier
    splitting : Splitting
        Chosen on the prompt's out-of-bag prediction: the trees know the pixels that
        they were fitted to by heart.
    n_threads : int
    """

    classifier: Any
    splitting: Splitting
    n_threads: int = 1

    @classmethod
    def fit(
        cls, prompts: Iterable[Prompt], *, seed: int = 0, n_threads: int = 1
    ) -> PixelForest:
        """Return a forest of 100 trees fitted to the pixels of the prompts.

        Raises
        ------
        PromptError
            If there is no prompt.
        ImportError
            If scikit-learn is not installed.
        """
        forest_class = _forest_class()
        # the first one, whose objects decide on splitting, should show some
        prompts = sorted(prompts, key=lambda p: p.is_negative)
        if not prompts:
            raise PromptError(NO_PROMPT)
        known = [p.mask.ravel() >= 0 for p in prompts]
        features = [
            pixel_features(normalise(p.image, p.intensities), n_threads)
            for p in prompts
        ]
        table = np.concatenate(
            [
                f.reshape(-1, f.shape[-1])[of]
                for f, of in zip(features, known, strict=True)
            ]
        )
        target = np.concatenate(
            [p.mask.ravel()[of] > 0 for p, of in zip(prompts, known, strict=True)]
        )
        classifier = forest_class(
            n_estimators=N_TREES, n_jobs=n_threads, random_state=seed, oob_score=True
        ).fit(table, target)
        first = np.maximum(prompts[0].mask, 0)
        unseen = first > 0
        if len(classifier.classes_) > 1:
            # NaN where no tree left the pixel out
            n = np.count_nonzero(known[0])
            shares = np.nan_to_num(classifier.oob_decision_function_[:n, 1])
            unseen[known[0].reshape(first.shape)] = shares > 0.5
        way, _ = best_splitting(unseen, first, splitting_grid(first))
        return cls(classifier, way, n_threads)

    @classmethod
    def fit_pixels(
        cls,
        images: Sequence[np.ndarray],
        labels: Sequence[np.ndarray],
        *,
        seed: int = 0,
    ) -> PixelForest:
        """Return a forest fitted to the labelled pixels of images, such as scribbles.

        Scribbles do not show how objects are split, so they are connected components.

        Parameters
        ----------
        images : sequence of (Y, X, C) float32 array
            Normalised, at the scale of the queries.
        labels : sequence of (Y, X) int array
            Partial labels: 0 = unknown, 1 = background, 2, 3, ... = objects.
        seed : int
        """
        table = np.concatenate(
            [
                pixel_features(image)[partial > 0]
                for image, partial in zip(images, labels, strict=True)
            ]
        )
        target = np.concatenate([partial[partial > 0] > 1 for partial in labels])
        classifier = _forest_class()(n_estimators=N_TREES, random_state=seed)
        return cls(classifier.fit(table, target), Splitting())

    def foreground(self, features: np.ndarray) -> np.ndarray:
        """Return the foreground probability of each pixel.

        Parameters
        ----------
        features : (Y, X, F) float32 array
            From `pixel_features`.

        Returns
        -------
        (Y, X) float32 array
        """
        classes = list(self.classifier.classes_)
        shape = features.shape[:2]
        if len(classes) == 1:  # the prompt shows one class only
            return np.full(shape, float(classes[0]), np.float32)
        table = features.reshape(-1, features.shape[-1])
        probability = self.classifier.predict_proba(table)[:, classes.index(True)]
        return np.asarray(probability.reshape(shape), np.float32)


def _forest_class() -> Any:
    """Return scikit-learn's class, or say how to install it."""
    try:
        from sklearn.ensemble import RandomForestClassifier
    except ImportError as error:
        raise ImportError(NEEDS_SKLEARN) from error
    return RandomForestClassifier
