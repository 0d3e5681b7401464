"""Synthetic microscopy: scenes with two kinds of objects, of which a prompt shows one.

A scene is two images drawn with the same parameters. The kinds differ in shape, size,
brightness, colour, texture or rim, so that only the prompt shows which one is wanted.

All parameters are drawn at random from wide ranges (domain randomisation): the scenes
need not look real, but real images should lie within their variety.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

Rng = np.random.Generator
Noise = Callable[[Rng, int, float], np.ndarray]
"""Returns noise (size, size) of mean 0 and deviation 1, of a size and grain."""


@dataclass(frozen=True, eq=False)
class Scene:
    """Images drawn with the same parameters.

    Parameters
    ----------
    images : list of (H, W, 3) uint8 arrays
    kinds : list of list of (H, W) uint16 arrays
        For each kind of object, its ids in each image.
    instances : tuple of bool
        For each kind, whether its ids are single objects (a net of cell walls has
        none).
    """

    images: list[np.ndarray]
    kinds: list[list[np.ndarray]]
    instances: tuple[bool, ...]


@dataclass(frozen=True)
class _Kind:
    """Appearance of one kind of object; lengths in pixels, intensities 0 to 1.

    Parameters
    ----------
    shape : str
        One of `SHAPES`.
    radius, spread : float
        Typical radius, and how much it varies between objects.
    elongation : float
        Ratio of the long to the short axis.
    wobble : float
        Irregularity of the outline.
    color : (3,) array
    texture, texture_scale : float
        Amplitude and grain size of the noise inside an object.
    rim, rim_width : float
        Brightness of the border (below 0: darkness) and its width.
    core : float
        Brightness of the middle (below 0: darkness).
    opacity : float
    crowd : float
        Share of the objects that are placed next to another one.
    """

    shape: str
    radius: float
    spread: float
    elongation: float
    wobble: float
    color: np.ndarray
    texture: float
    texture_scale: float
    rim: float
    rim_width: float
    core: float
    opacity: float
    crowd: float


SHAPES = ("blob", "rod", "ring", "crescent", "star", "bean")
NEW_CLUSTER = 0.12
"""Share of touching objects that do not touch another, but begin a cluster."""
TOUCHING_OVERLAP = 0.05
"""Largest share of an object that may lie behind the one it touches."""


def smooth_noise(rng: Rng, size: int, scale: float) -> np.ndarray:
    """Return noise (size, size) of mean 0 and deviation 1, with grains of ``scale``."""
    # white noise on a coarse grid, enlarged: cheaper than filtering a fine one
    coarse = max(4, int(np.ceil(size / max(scale, 1.0))) + 3)
    field = rng.standard_normal((min(coarse, size), min(coarse, size)))
    if coarse < size:
        field = ndimage.zoom(field, size / (coarse - 2), order=1)[:size, :size]
    else:
        field = field[:size, :size]
    return np.asarray((field - field.mean()) / (field.std() + 1e-6), np.float32)


def draw_scene(
    seed: int,
    size: int = 224,
    n_images: int = 2,
    *,
    touching: bool = False,
    noise: Noise = smooth_noise,
) -> Scene:
    """Return the scene of a seed; the same seed gives the same images.

    Parameters
    ----------
    seed : int
    size : int
        Side of the images.
    n_images : int
    touching : bool
        Draw objects in clusters, in which they touch: rods side by side and end to end,
        round and bent ones.
    noise : Noise
        Textures of objects and backgrounds, see `texture_noise`.
    """
    rng = np.random.default_rng([seed, 77])
    if touching:
        return _object_scene(rng, size, n_images, noise, touching=True)
    layout = rng.choice(["objects", "mosaic", "net", "texture"], p=[0.6, 0.2, 0.1, 0.1])
    if layout == "mosaic":
        return _mosaic_scene(rng, size, n_images, noise, net=False)
    if layout == "net":
        return _mosaic_scene(rng, size, n_images, noise, net=True)
    if layout == "texture":
        return _texture_scene(rng, size, n_images, noise)
    return _object_scene(rng, size, n_images, noise)


def texture_noise(images: Sequence[np.ndarray]) -> Noise:
    """Return a source of noise that is cut from images, in place of `smooth_noise`.

    Parameters
    ----------
    images : sequence of (H, W, 3) uint8 arrays
        At least 32 pixels high and wide.

    Returns
    -------
    Noise
        It cuts a window, brings it to the size, and takes the uneven light out of it.
        The scale it is asked for is not used: an image has its own.
    """

    def noise(rng: Rng, size: int, scale: float) -> np.ndarray:
        image = images[int(rng.integers(len(images)))]
        side = int(min(size * rng.uniform(0.5, 1.5), *image.shape[:2]))
        y, x = (int(rng.integers(n - side + 1)) for n in image.shape[:2])
        part = image[y : y + side, x : x + side].mean(-1)
        part = ndimage.zoom(part, size / side, order=1)
        part = part - ndimage.gaussian_filter(part, size / 8)
        return np.asarray((part - part.mean()) / (part.std() + 1e-6), np.float32)

    return noise


def _background(rng: Rng, size: int, level: np.ndarray, noise: Noise) -> np.ndarray:
    """Return an empty image with uneven illumination and, mostly, grain."""
    image = np.broadcast_to(level, (size, size, 3)).astype(np.float32).copy()
    image += (
        rng.uniform(0, 0.12) * smooth_noise(rng, size, rng.uniform(30, 120))[..., None]
    )
    if rng.random() < 0.6:
        grain = noise(rng, size, rng.uniform(1, 12))[..., None]
        image += rng.uniform(0, 0.12) * grain * rng.uniform(0.5, 1, 3)
    return image


def _color(rng: Rng, grey: bool) -> np.ndarray:
    """Return a random colour (3,); equal channels in a grey scene."""
    if grey:
        return np.full(3, rng.uniform(0, 1), np.float32)
    return rng.uniform(0, 1, 3).astype(np.float32)


def _random_kind(rng: Rng, grey: bool) -> _Kind:
    """Return a random kind of object."""
    return _Kind(
        shape=str(rng.choice(SHAPES, p=[0.4, 0.2, 0.1, 0.08, 0.08, 0.14])),
        # log-uniform: a factor of two is as likely among small as among large objects
        radius=float(np.exp(rng.uniform(np.log(5), np.log(22)))),
        spread=rng.uniform(0, 0.35),
        elongation=rng.uniform(1, 2.2),
        wobble=rng.uniform(0, 0.22),
        color=_color(rng, grey),
        texture=rng.choice([0, rng.uniform(0.03, 0.3)]),
        texture_scale=rng.uniform(1, 8),
        rim=rng.choice([0, rng.uniform(-0.5, 0.5)]),
        rim_width=rng.uniform(1, 3),
        core=rng.choice([0, rng.uniform(-0.4, 0.4)]),
        opacity=rng.uniform(0.45, 1),
        crowd=rng.uniform(0, 1),
    )


def _distractor_kind(rng: Rng, kind: _Kind, grey: bool) -> _Kind:
    """Return a kind that shares a part of the properties of ``kind``.

    One property, drawn at random, is made to differ, so that a prompt can distinguish
    the two.
    """
    other = _random_kind(rng, grey)
    values = {}
    for name in _Kind.__dataclass_fields__:
        values[name] = getattr(kind if rng.random() < 0.55 else other, name)
    decisive = rng.choice(["shape", "radius", "color", "texture", "rim", "core"])
    if decisive == "radius":
        factor = rng.choice([0.45, 2.0])
        values["radius"] = float(np.clip(kind.radius * factor, 3.5, 30))
    elif decisive == "color":
        shift = rng.uniform(0.2, 0.6) * rng.choice([-1, 1], 1 if grey else 3)
        values["color"] = np.clip(kind.color + shift, 0, 1).astype(np.float32)
    else:
        values[str(decisive)] = getattr(other, str(decisive))
    return _Kind(**values)


def _depth(kind: _Kind, rng: Rng, angle: float | None = None) -> np.ndarray:
    """Return the signed depth of one random object: above 0 inside, in pixels.

    Parameters
    ----------
    kind : _Kind
    rng : numpy Generator
    angle : float, optional
        Of the long axis, in radians from the x axis towards y; random by default.

    Returns
    -------
    (2 n + 1, 2 n + 1) float array
        The object lies in the middle.
    """
    radius = kind.radius * float(np.exp(rng.normal(0, kind.spread * 0.6)))
    radius = float(np.clip(radius, 3, 40))
    stretch = np.sqrt(kind.elongation)
    if kind.shape == "rod":
        stretch = max(stretch, 1.4) * rng.uniform(1, 1.25)
    half = int(np.ceil(radius * stretch * 1.6)) + 3
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    if angle is None:
        angle = rng.uniform(0, 2 * np.pi)
    # coordinates along the long (u) and the short axis (v)
    u = np.cos(angle) * x + np.sin(angle) * y
    v = -np.sin(angle) * x + np.cos(angle) * y
    if kind.shape == "bean" or (kind.shape == "rod" and rng.random() < 0.5):
        v = v + rng.uniform(-0.35, 0.35) * u**2 / (radius * stretch)  # bent
    if kind.shape == "rod":  # a line segment with round ends
        length, width = radius * stretch, radius / stretch
        u = np.sign(u) * np.maximum(np.abs(u) - (length - width), 0)
        return np.asarray(width - np.hypot(u, v))
    # all others in polar coordinates: an ellipse whose radius varies with the angle
    a, b = radius * stretch, radius / stretch
    rho = np.hypot(u / a, v / b)
    theta = np.arctan2(v / b, u / a)
    limit = np.ones_like(rho)
    for k in range(2, 6):
        limit += (
            kind.wobble / k * rng.normal() * np.cos(k * theta + rng.uniform(0, 6.3))
        )
    if kind.shape == "star":
        limit += 0.3 * np.cos(rng.integers(3, 7) * theta)
    depth = (limit - rho) * b
    if kind.shape == "ring":
        depth = np.minimum(depth, (rho - rng.uniform(0.35, 0.55)) * b)
    if kind.shape == "crescent":
        depth = np.minimum(depth, (np.hypot((u - 0.6 * a) / a, v / b) - 0.65) * b)
    return np.asarray(depth)


@dataclass
class _Canvas:
    """An image in drawing, and what lies in it.

    Parameters
    ----------
    image : (size, size, 3) float array
    taken : (size, size) uint8 array
        1 where any object lies.
    ids : list of (size, size) uint16 arrays
        Ids of each kind.
    textures : list of (size, size) float arrays
        Noise of each kind.
    placed : list of list of ((y, x), angle)
        Objects of each kind; the angle of those that may stand anywhere is 0.
    """

    image: np.ndarray
    taken: np.ndarray
    ids: list[np.ndarray]
    textures: list[np.ndarray]
    placed: list[list[tuple[np.ndarray, float]]]

    def window(
        self, depth: np.ndarray, centre: np.ndarray
    ) -> tuple[tuple[slice, slice], np.ndarray] | None:
        """Return where an object lies, and its depth there; None if it is outside."""
        size, half = len(self.taken), len(depth) // 2
        y, x = (round(float(c)) - half for c in centre)
        y0, x0 = max(y, 0), max(x, 0)
        y1, x1 = min(y + len(depth), size), min(x + len(depth), size)
        if y1 - y0 < 4 or x1 - x0 < 4:
            return None
        return (slice(y0, y1), slice(x0, x1)), depth[y0 - y : y1 - y, x0 - x : x1 - x]

    def hidden(self, depth: np.ndarray, centre: np.ndarray) -> float:
        """Return the share of an object that others would hide; 0 if it is outside."""
        found = self.window(depth, centre)
        if found is None:
            return 0.0
        inside = found[1] > 0
        return float((inside & (self.taken[found[0]] > 0)).sum() / max(inside.sum(), 1))

    def draw(
        self, rng: Rng, kind: _Kind, k: int, depth: np.ndarray, centre: np.ndarray
    ) -> bool:
        """Draw an object of kind ``k``, if there is room; return whether there was."""
        found = self.window(depth, centre)
        if found is None:
            return False
        here, depth = found
        inside = depth > 0
        area = int(inside.sum())
        if area < 12:
            return False
        hidden = int((inside & (self.taken[here] > 0)).sum())
        if hidden > 0.3 * area:  # the rest would no longer have the kind's shape
            return False
        inside &= self.taken[here] == 0  # objects drawn before stay on top
        self.taken[here][inside] = 1
        self.ids[k][here][inside] = 1 + sum(len(p) for p in self.placed)
        level = kind.color + rng.normal(0, 0.04)
        shade = level + kind.texture * self.textures[k][here][..., None]
        shade = shade + kind.rim * np.exp(-((depth / kind.rim_width) ** 2))[..., None]
        middle = np.clip(depth / max(float(depth.max()), 1), 0, 1)[..., None]
        shade = shade + kind.core * middle**2
        alpha = np.clip(depth + 0.5, 0, 1)[..., None] * kind.opacity * inside[..., None]
        self.image[here] = self.image[here] * (1 - alpha) + shade * alpha
        return True


def _place(rng: Rng, kind: _Kind, k: int, canvas: _Canvas) -> None:
    """Draw one object of kind ``k``, mostly at random, if there is room."""
    centre = rng.uniform(-6, len(canvas.taken) + 6, 2)
    placed = canvas.placed[k]
    if placed and rng.random() < kind.crowd:
        step = rng.normal(size=2)
        step *= kind.radius * rng.uniform(1.6, 2.6) / (np.hypot(*step) + 1e-6)
        centre = placed[rng.integers(len(placed))][0] + step
    if canvas.draw(rng, kind, k, _depth(kind, rng), centre):
        placed.append((np.array(centre), 0.0))


def _place_touching(rng: Rng, kind: _Kind, k: int, canvas: _Canvas) -> None:
    """Draw one object of kind ``k`` that touches another, if there is room."""
    placed = canvas.placed[k]
    if placed and rng.random() > NEW_CLUSTER:
        beside, angle = placed[rng.integers(len(placed))]
        # at an end or a side of the other, nearly parallel to it
        towards = angle + rng.integers(4) * np.pi / 2 + rng.normal(0, 0.3)
        angle = angle + rng.normal(0, 0.2)
        depth = _depth(kind, rng, angle)
        direction = np.array([np.sin(towards), np.cos(towards)])
        for distance in np.arange(kind.radius / 2, 6 * kind.radius):
            centre = beside + distance * direction
            if canvas.hidden(depth, centre) <= TOUCHING_OVERLAP:
                break
        else:
            return
    else:
        angle = rng.uniform(0, 2 * np.pi)
        depth, centre = _depth(kind, rng, angle), rng.uniform(0, len(canvas.taken), 2)
        if canvas.hidden(depth, centre) > TOUCHING_OVERLAP:
            return
    if canvas.draw(rng, kind, k, depth, centre):
        placed.append((centre, angle))


def _object_scene(
    rng: Rng, size: int, n_images: int, noise: Noise, *, touching: bool = False
) -> Scene:
    """Return a scene of single objects of two kinds, sometimes of one."""
    grey = bool(rng.random() < 0.6)
    first = _random_kind(rng, grey)
    if touching:
        first = replace(first, shape=str(rng.choice(["rod", "blob", "bean"])))
    kinds = [first, _distractor_kind(rng, first, grey)]
    if noise is not smooth_noise:
        kinds = [replace(k, texture=rng.uniform(0.05, 0.3)) for k in kinds]
    level = _color(rng, grey)
    fill = rng.uniform(0.12, 0.6)
    n_kinds = 2 if rng.random() < 0.8 else 1
    images: list[np.ndarray] = []
    ids: list[list[np.ndarray]] = [[] for _ in range(n_kinds)]
    finish = int(rng.integers(1 << 31))
    place = _place_touching if touching else _place
    for _ in range(n_images):
        canvas = _Canvas(
            _background(rng, size, level, noise),
            np.zeros((size, size), np.uint8),
            [np.zeros((size, size), np.uint16) for _ in range(n_kinds)],
            [noise(rng, size, k.texture_scale) for k in kinds],
            [[] for _ in range(n_kinds)],
        )
        for _ in range(139):  # until the image is full, see below
            k = int(rng.integers(n_kinds))
            place(rng, kinds[k], k, canvas)
            if canvas.taken.mean() > fill:
                break
        images.append(_finished(canvas.image, finish))
        for k in range(n_kinds):
            ids[k].append(canvas.ids[k])
    return Scene(images, ids, (True,) * n_kinds)


def _mosaic_scene(
    rng: Rng, size: int, n_images: int, noise: Noise, *, net: bool
) -> Scene:
    """Return a scene of tightly packed cells, as in an epithelium.

    Kinds are the cells and spots in them, the cells and the net of walls between them,
    or with ``net`` the walls alone.
    """
    grey = bool(rng.random() < 0.7)
    pitch = float(np.exp(rng.uniform(np.log(12), np.log(44))))
    width = rng.uniform(1.0, 3.5)
    wall, inner = _color(rng, grey), _color(rng, grey)
    while np.abs(wall - inner).max() < 0.2:
        wall = _color(rng, grey)
    variety, grain = rng.uniform(0, 0.12), rng.uniform(0, 0.15)
    grain_scale, jitter = rng.uniform(1, 6), rng.uniform(0.25, 0.5)
    stretch = rng.uniform(1, 2)
    missing = rng.choice([0.0, rng.uniform(0.05, 0.4)])
    spots = bool(rng.random() < 0.4)
    spot_color = _color(rng, grey)
    finish = int(rng.integers(1 << 31))
    y, x = np.mgrid[:size, :size].astype(np.float32)
    images, cells, walls, dots = [], [], [], []
    for _ in range(n_images):
        # Cells are the Voronoi regions of a jittered grid, on coordinates that smooth
        # noise bends, so that walls are not straight.
        wave = pitch * 0.2
        yy = (y + wave * smooth_noise(rng, size, 1.5 * pitch)) * stretch
        xx = x + wave * smooth_noise(rng, size, 1.5 * pitch)
        grid = np.stack(
            np.meshgrid(
                np.arange(-pitch, size * stretch + pitch, pitch),
                np.arange(-pitch, size + pitch, pitch),
                indexing="ij",
            ),
            -1,
        ).reshape(-1, 2)
        grid = grid + rng.normal(0, jitter * pitch, grid.shape)
        distance, nearest = cKDTree(grid).query(
            np.stack([yy.ravel(), xx.ravel()], 1), k=2
        )
        # nearly as far from the second seed as from the first: a wall
        gap = (distance[:, 1] - distance[:, 0]).reshape(size, size)
        owner = nearest[:, 0].reshape(size, size)
        empty = rng.random(len(grid)) < missing  # cells without content
        is_wall = gap < width * 1.4
        tone = rng.normal(0, 1, len(grid))[owner] * variety
        image = (
            inner + tone[..., None] + (grain * noise(rng, size, grain_scale)[..., None])
        )
        edge = np.exp(-((gap / (width * 1.2)) ** 2))[..., None]
        image = image * (1 - edge) + wall * edge
        image = np.where((empty[owner] & ~is_wall)[..., None], 0.7 * wall + 0.1, image)
        dot = np.zeros((size, size), np.uint16)
        if spots:
            seen = distance[:, 0].reshape(size, size) < pitch * 0.22
            seen &= ~empty[owner] & ~is_wall
            dot = np.where(seen, owner + 1, 0).astype(np.uint16)
            image = np.where(seen[..., None], 0.75 * spot_color + 0.25 * image, image)
        cell = np.where(is_wall | empty[owner], 0, owner + 1).astype(np.uint16)
        images.append(_finished(image.astype(np.float32), finish))
        cells.append(cell)
        walls.append(is_wall.astype(np.uint16))
        dots.append(dot)
    if net:
        return Scene(images, [walls], (False,))
    if spots and rng.random() < 0.5:
        return Scene(images, [cells, dots], (True, True))
    return Scene(images, [cells, walls], (True, False))


def _texture_scene(rng: Rng, size: int, n_images: int, noise: Noise) -> Scene:
    """Return a scene of two regions that differ in texture or colour, as tissues do.

    There are no single objects.
    """
    grey = bool(rng.random() < 0.4)
    textures = [
        (
            _color(rng, grey),
            rng.uniform(0.02, 0.35),
            rng.uniform(1, 10),
            rng.uniform(0, 1),
            _color(rng, grey),
        )
        for _ in range(2)
    ]
    if rng.random() < 0.5:  # the same colour: only the texture differs
        textures[1] = (textures[0][0], *textures[1][1:])
    scale, level = rng.uniform(18, 60), rng.uniform(-0.5, 0.5)
    finish = int(rng.integers(1 << 31))
    images, ids = [], []
    for _ in range(n_images):
        region = smooth_noise(rng, size, scale) + 0.3 * smooth_noise(
            rng, size, scale / 3
        )
        inside = ndimage.gaussian_filter(region, 1) > level
        layers = []
        for tone, depth, grain, dots, dot_color in textures:
            field = noise(rng, size, grain)
            layer = tone + depth * field[..., None]
            if dots > 0.5:
                spots = (smooth_noise(rng, size, 3 + grain) > 1.2)[..., None]
                layer = np.where(spots, dot_color, layer)
            layers.append(layer)
        image = np.where(inside[..., None], layers[0], layers[1]).astype(np.float32)
        images.append(_finished(image, finish))
        ids.append(inside.astype(np.uint16))
    outside = [(1 - i).astype(np.uint16) for i in ids]
    return Scene(images, [ids, outside], (False, False))


def _finished(image: np.ndarray, seed: int) -> np.ndarray:
    """Return the image (H, W, 3) uint8 with blur, halo and noise of a microscope.

    Parameters
    ----------
    image : (H, W, 3) float array
    seed : int
        Of the optics, which all images of a scene share.
    """
    rng = np.random.default_rng(seed)
    blur = rng.choice([0.0, rng.uniform(0.4, 1.6)])
    if blur:
        image = ndimage.gaussian_filter(image, (blur, blur, 0))
    if rng.random() < 0.2:  # a halo around objects, as in phase contrast
        wide = ndimage.gaussian_filter(image, (5, 5, 0))
        image = image + rng.uniform(0.5, 1.5) * (image - wide)
    noise = rng.uniform(0, 0.07)
    # seeded by the image: noise differs between the images of a scene, repeatably
    local = np.random.default_rng(zlib.crc32(image.tobytes()))
    shape = image.shape if rng.random() < 0.5 else (*image.shape[:2], 1)
    image = image + noise * local.standard_normal(shape).astype(np.float32)
    low, high = image.min(), image.max()
    return np.asarray(255 * (image - low) / max(high - low, 1e-3), np.uint8)
