"""Training tasks from unlabelled images: superpixels with similar features.

Superpixels stand in for labelled objects (self-supervision). A task asks for all
superpixels that are similar, because a user wants all cells of a kind and not one
region.

References
----------
C. Ouyang et al. "Self-supervised learning for few-shot medical image segmentation"
(SSL-ALPNet). ECCV 2020; IEEE TMI 2022.
P. F. Felzenszwalb, D. P. Huttenlocher. "Efficient graph-based image segmentation".
International Journal of Computer Vision, 2004.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.segmentation import felzenszwalb

Rng = np.random.Generator


def window(image: np.ndarray, side: int, rng: Rng) -> np.ndarray:
    """Return a random crop of an image (Y, X, ...), at most ``side`` pixels long."""
    y, x = (int(rng.integers(max(1, n - side + 1))) for n in image.shape[:2])
    return image[y : y + side, x : x + side]


def superpixel_masks(image: np.ndarray, n_masks: int, rng: Rng) -> list[np.ndarray]:
    """Return masks of superpixels with similar brightness and texture.

    Parameters
    ----------
    image : (H, W, 3) uint8 array
    n_masks : int
        Number of masks at most; an image with few superpixels gives fewer.
    rng : numpy Generator

    Returns
    -------
    list of (H, W) uint8 arrays
        1 inside, 0 outside; each covers 2 to 60 % of the image.
    """
    masks = []
    for _ in range(2 * n_masks):
        # another scale for each mask, so that regions of all sizes occur
        labels = felzenszwalb(
            image,
            scale=float(np.exp(rng.uniform(np.log(30), np.log(400)))),
            sigma=rng.uniform(0.6, 1.4),
            min_size=int(rng.integers(30, 150)),
        )
        mask = _similar(image, labels, rng)
        if 0.02 <= mask.mean() <= 0.6:
            masks.append(mask)
        if len(masks) == n_masks:
            break
    return masks


def _similar(image: np.ndarray, labels: np.ndarray, rng: Rng) -> np.ndarray:
    """Return the mask of a random superpixel and of those with similar features.

    The features are mean and standard deviation of each channel, i.e. brightness and
    contrast of the texture.
    """
    n = int(labels.max()) + 1
    if n < 4:
        return np.zeros(labels.shape, np.uint8)
    index = np.arange(n)
    columns = []
    for channel in np.moveaxis(image.astype(np.float32), -1, 0):
        columns.append(ndimage.mean(channel, labels, index))
        columns.append(ndimage.standard_deviation(channel, labels, index))
    features = np.stack(columns, axis=1)
    features = (features - features.mean(0)) / (features.std(0) + 1e-3)
    chosen = int(rng.integers(n))
    distance = np.linalg.norm(features - features[chosen], axis=1)
    # by a threshold on the distance, or by number: 2 to 20 superpixels
    if rng.random() < 0.5:
        members = distance <= rng.uniform(0.3, 1.0)
    else:
        count = int(rng.integers(2, 21))
        members = distance <= np.sort(distance)[min(count, n) - 1]
    return np.asarray(members[labels], np.uint8)
