"""Tiled prediction: laws, sizes, scales, prompts, fall-backs, trust, cancel."""

from __future__ import annotations

import copy
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import napari_svpseg as svpseg
from napari_svpseg.core.geometry import Box
from napari_svpseg.core.image import TOO_MANY_CHANNELS, ImageError, intensity_range
from napari_svpseg.core.labels.instances import instances_from_maps
from napari_svpseg.core.labels.metrics import f1
from napari_svpseg.core.progress import Cancelled
from napari_svpseg.core.prompt import (
    ALL_NEGATIVE,
    UNKNOWN,
    Prompt,
    PromptError,
    PromptSet,
)
from napari_svpseg.core.settings import PostprocessSettings, SegmentSettings
from napari_svpseg.engine.inference import predict as module
from napari_svpseg.engine.inference.device import choose
from napari_svpseg.engine.inference.forward import (
    FEWER_TILES,
    NO_MEMORY,
    SMALLER_TILES,
    Forward,
    NoNumbersError,
)
from napari_svpseg.engine.inference.predict import (
    OTHER_CHANNELS,
    ZOOMED,
    predict,
    query_zoom,
)
from napari_svpseg.engine.inference.prompt_features import network_scale, prompt_tensors
from napari_svpseg.engine.inference.self_consistency import most_confident_window
from napari_svpseg.engine.inference.tiling import NOT_A_PLANE, ScaledQuery, spans
from napari_svpseg.io.model_store import load_model
from napari_svpseg.models.base import IGNORE, PromptSegmenter


class Brightness(PromptSegmenter):
    """Foreground where a pixel is nearer to the prompt's objects than to the rest.

    Smoothed by two convolutions, so that it looks 6 pixels around each pixel.
    """

    overlap = 6
    object_range = (10.0, 40.0)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 1, 7, padding=3, bias=False)
        self.second = nn.Conv2d(1, 1, 7, padding=3, bias=False)
        for conv in (self.first, self.second):
            nn.init.constant_(conv.weight, 1 / 49)
        self.seen: list[tuple[int, ...]] = []

    def encode_prompts(self, images, masks):
        grey = images.mean(2)
        means = [
            (grey * where).sum((1, 2, 3)) / where.sum((1, 2, 3)).clamp(min=1)
            for where in (masks == 0, masks > 0)
        ]
        return {"means": torch.stack(means, 1)}

    def forward(self, query, code):
        self.seen.append(tuple(query.shape))
        low, high = code["means"][:, 0], code["means"][:, 1]
        grey = query.mean(1, keepdim=True) - ((low + high) / 2)[:, None, None, None]
        logits = 8 * self.second(self.first(grey * torch.sign(high - low)[0]))
        return {"foreground": logits, "distance": logits - 1}


def discs(shape=(200, 230), diameter=20, seed=0):
    """Return an image of bright discs and its labels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.int32)
    step = int(diameter * 1.6)
    for i, cy in enumerate(range(step // 2, shape[0], step)):
        for j, cx in enumerate(range(step // 2, shape[1], step)):
            inside = (y - cy) ** 2 + (x - cx) ** 2 <= (diameter / 2) ** 2
            labels[inside] = 1 + i * 100 + j
    image = 100.0 + 200 * (labels > 0) + rng.normal(0, 3, shape)
    return image.astype(np.float32), labels


def prompt_of(image, labels, box=(3, 5), size=64, **more):
    return Prompt.from_image(image, labels, box, size, **more)


@pytest.fixture
def scene():
    image, labels = discs()
    return image[..., None], PromptSet([prompt_of(image, labels)]), labels


def run(plane, prompts, network=None, **settings):
    return predict(
        plane,
        prompts,
        network or Brightness(),
        "cpu",
        SegmentSettings(**{"trust": False, **settings}),
    )


# ---------------------------------------------------------------- laws of tiling


def test_tiled_equals_whole(scene):
    plane, prompts, _ = scene
    whole = run(plane, prompts)
    tiled = run(plane, prompts, tile=64, overlap=16)
    for name in ("foreground", "distance"):
        difference = np.abs(getattr(whole.maps, name) - getattr(tiled.maps, name)).max()
        assert difference < 1e-3


@settings(max_examples=12, deadline=None)
@given(st.integers(64, 200), st.integers(0, 3))
def test_labels_do_not_depend_on_the_size_of_tiles(tile, seed):
    image, labels = discs(seed=seed)
    plane, prompts = image[..., None], PromptSet([prompt_of(image, labels)])
    whole = run(plane, prompts)
    tiled = run(plane, prompts, tile=tile, overlap=16)
    one, two = (
        instances_from_maps(p.maps, PostprocessSettings()) for p in (whole, tiled)
    )
    assert one.max() > 3 and np.array_equal(one, two)


def test_without_overlap_tiled_differs(scene):
    plane, prompts, _ = scene
    whole, tiled = run(plane, prompts), run(plane, prompts, tile=64, overlap=0)
    assert np.abs(whole.maps.foreground - tiled.maps.foreground).max() > 1e-2


@pytest.mark.parametrize("size", [32, 48, 96, 150])
def test_tiled_equals_whole_when_resampled(scene, size):
    plane, _, labels = scene
    prompts = PromptSet([prompt_of(plane[..., 0], labels, size=size)])
    whole = run(plane, prompts, tile=1024, scale_objects=False)
    tiled = run(plane, prompts, tile=64, overlap=16, scale_objects=False)
    assert whole.scale == pytest.approx(64 / size)
    assert np.abs(whole.maps.foreground - tiled.maps.foreground).max() < 1e-3


def test_real_network_tiled_is_close_to_whole(scene):
    from napari_svpseg.models.registry import ModelConfig, build

    plane, prompts, _ = scene
    torch.manual_seed(0)
    network = build(ModelConfig("panet", {"width": 8}))
    whole = run(plane, prompts, network)
    tiled = run(plane, prompts, network, tile=128, overlap=64)
    assert np.abs(whole.maps.foreground - tiled.maps.foreground).mean() < 5e-3


@pytest.mark.parametrize("length", [1, 15, 64, 100, 257, 1000])
@pytest.mark.parametrize("scale", [0.37, 1.0, 2.0])
@pytest.mark.parametrize("overlap", [0, 16, 32])
def test_weights_of_tiles_sum_up_to_one(length, scale, overlap):
    total = np.zeros(length)
    for span in spans(length, scale, 64, overlap, 6, 16):
        assert span.start % 16 == 0
        assert span.stop - span.start <= 64
        total[span.first : span.last] += span.weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_tiles_are_no_larger_than_their_number_demands():
    cut = spans(704, 1.0, 512, 64, 20, 16)
    assert [(s.start, s.stop) for s in cut] == [(0, 384), (320, 704)]


# ---------------------------------------------------------------- what comes in


@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (17, 3), (63, 64), (65, 200)])
def test_any_size(scene, shape):
    plane, prompts, _ = scene
    maps = run(plane[: shape[0], : shape[1]], prompts, trust=True).maps
    assert maps.foreground.shape == shape
    assert maps.foreground.dtype == np.float32
    assert np.isfinite(maps.foreground).all()


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "int32", "float64"])
def test_any_dtype(scene, dtype):
    plane, prompts, labels = scene
    image = (plane > 200) if dtype == "bool" else np.clip(plane, 0, 255).astype(dtype)
    found = run(image, prompts).maps.foreground > 0.5
    assert (found == (labels > 0)).mean() > 0.8


def test_nan_and_infinity_stay_local(scene):
    plane, prompts, _ = scene
    clean = run(plane, prompts).maps.foreground
    broken = plane.copy()
    broken[50, 50], broken[50, 51], broken[51, 50] = np.nan, np.inf, -np.inf
    maps = run(broken, prompts).maps
    assert np.isfinite(maps.foreground).all()
    far = np.ones(clean.shape, bool)
    far[40:62, 40:62] = False
    assert np.abs(maps.foreground - clean)[far].max() < 0.05


def test_constant_image_is_no_error(scene):
    _, prompts, _ = scene
    prediction = run(np.full((80, 80, 1), 7.0), prompts, trust=True)
    assert np.isfinite(prediction.maps.foreground).all()


def test_query_keeps_its_own_intensities(scene):
    plane, prompts, labels = scene
    darker = plane * 0.1 - 5
    np.testing.assert_allclose(
        run(plane, prompts).maps.foreground,
        run(darker, prompts).maps.foreground,
        atol=1e-3,
    )
    half = run(darker, prompts, tile=64, overlap=16)
    assert ((half.maps.foreground > 0.5) == (labels > 0)).mean() > 0.8


def test_given_intensities_are_used(scene):
    plane, prompts, _ = scene
    network = Brightness()
    part = plane[:70, :70]
    whole = intensity_range(plane)
    prediction = predict(
        part, prompts, network, "cpu", SegmentSettings(trust=False), whole
    )
    np.testing.assert_array_equal(prediction.intensities, whole)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_channels(channels):
    image, labels = discs()
    colour = np.repeat(image[..., None], channels, 2)
    prompts = PromptSet([prompt_of(colour, labels, rgb=False)])
    assert run(colour, prompts).maps.foreground.shape == image.shape


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        ((20, 20), ImageError, NOT_A_PLANE.format(shape=(20, 20))),
        ((20, 20, 4), ImageError, TOO_MANY_CHANNELS.format(n=4)),
        ((0, 20, 1), ImageError, NOT_A_PLANE.format(shape=(0, 20, 1))),
        ((20, 20, 2), PromptError, OTHER_CHANNELS.format(query=2, prompts=1)),
    ],
)
def test_wrong_queries_are_refused(scene, shape, error, message):
    with pytest.raises(error, match=re.escape(message)):
        run(np.zeros(shape), scene[1])


class Lazy:
    """A plane that can only be sliced, and remembers the largest piece."""

    def __init__(self, array):
        self._array, self.shape, self.largest = array, array.shape, 0

    def __getitem__(self, index):
        piece = self._array[index]
        self.largest = max(self.largest, piece.size)
        return piece


def test_lazy_plane_is_read_tile_by_tile(scene):
    plane, prompts, _ = scene
    lazy = Lazy(np.tile(plane, (8, 8, 1)))
    prediction = run(lazy, prompts, tile=128, overlap=16)
    assert prediction.maps.foreground.shape == lazy.shape[:2]
    assert lazy.largest <= 512 * 512  # the blocks from which intensities are taken


def test_dask_array_equals_numpy(scene):
    array = pytest.importorskip("dask.array")
    plane, prompts, _ = scene
    lazy = array.from_array(plane, chunks=(50, 70, 1))
    np.testing.assert_allclose(
        run(lazy, prompts).maps.foreground,
        run(plane, prompts).maps.foreground,
        atol=1e-3,
    )


# ---------------------------------------------------------------- scale


def test_object_size_is_brought_into_range():
    image, labels = discs((300, 300), diameter=6)
    prompts = PromptSet([prompt_of(image, labels)])
    assert network_scale(prompts, Brightness(), resize=False) == 1
    assert network_scale(prompts, Brightness()) == pytest.approx(10 / 6, rel=0.1)


def test_factor_is_limited_and_box_scale_stays():
    image, labels = discs((300, 300), diameter=3)
    assert network_scale(PromptSet([prompt_of(image, labels)]), Brightness()) == 2
    small = PromptSet([prompt_of(image, labels, size=16)])
    assert network_scale(small, Brightness()) == 4  # the box's own, and no more


def test_a_single_missed_object_does_not_tell_the_typical_size():
    image, labels = discs((300, 300), diameter=24)
    box = prompt_of(image, labels)
    crumb = np.full(labels.shape, UNKNOWN, np.int32)
    crumb[150:170, 150:170] = 0
    crumb[158:161, 158:161] = 1
    example = replace(prompt_of(image, crumb, box=(130, 130)), clicked=True)
    alone, together = PromptSet([box]), PromptSet([box, example, example])
    assert together.typical() == (box,)
    assert network_scale(together, Brightness()) == network_scale(alone, Brightness())
    properties = [run(image[..., None], p).maps.objects for p in (alone, together)]
    assert properties[0].diameter == properties[1].diameter
    # where nothing else is shown, it is all there is
    assert PromptSet([example]).typical() == (example,)


def test_nets_are_not_resized():
    image = np.zeros((100, 100), np.float32)
    image[::20], image[:, ::20] = 1, 1
    prompts = PromptSet([prompt_of(image, (image > 0).astype(int))])
    assert network_scale(prompts, Brightness()) == 1


def test_maps_come_back_at_full_size():
    image, labels = discs((240, 310), diameter=60)
    prompts = PromptSet([prompt_of(image, labels, size=128)])
    prediction = run(image[..., None], prompts)
    assert prediction.scale == pytest.approx(0.5, rel=0.01)
    found = prediction.maps.foreground > 0.5
    assert found.shape == image.shape
    overlap = 2 * (found & (labels > 0)).sum() / (found.sum() + (labels > 0).sum())
    assert overlap > 0.85


def test_resampled_query_is_that_of_core(scene):
    """The network sees the query as it saw the prompts: same filter, same positions."""
    from napari_svpseg.core.image import normalise, resize_image

    plane = scene[0][:200, :200]
    ranges = intensity_range(plane)
    for scale in (0.5, 2.0):
        side = int(200 * scale)
        seen = ScaledQuery(plane, ranges, scale).read((0, side), (0, side))[0].numpy()
        core = resize_image(normalise(plane, ranges), (side, side))[..., 0]
        assert np.abs(seen - core)[2:-2, 2:-2].max() < 1e-3


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_piece_of_one_value_is_read_as_any_other(channels):
    plane = np.zeros((60, 60, channels))
    plane[..., :] = np.arange(channels) + 3
    ranges = np.array([[0.0, 10.0]] * channels)
    plain = ScaledQuery(plane, ranges, 0.7).read((0, 32), (16, 48))
    plane[-1, -1] += 1e-9  # no longer of one value, in a part that is read
    other = ScaledQuery(plane, ranges, 0.7).read((0, 48), (16, 48))[:, :32]
    assert plain.shape == other.shape == (3, 32, 32)
    assert torch.allclose(plain, other, atol=1e-6) and (plain[0] < -0.7).all()


# ---------------------------------------------------------------- prompts


def test_prompts_of_different_boxes_share_a_scale():
    image, labels = discs((300, 300))
    prompts = PromptSet(
        [
            prompt_of(image, labels),
            prompt_of(image, labels, size=128),
        ]
    )
    scale = network_scale(prompts, Brightness())
    assert scale == pytest.approx(math.sqrt(0.5))
    images, masks = prompt_tensors(prompts, scale)
    assert images.shape == (1, 2, 3, 91, 91)
    assert (masks[0, 0] == IGNORE).any()
    assert (masks[0, 0, :45, :45] != IGNORE).all()
    assert (masks[0, 1] != IGNORE).all()


def test_one_prompt_is_passed_on_unchanged(scene):
    _, prompts, _ = scene
    images, masks = prompt_tensors(prompts, 1.0)
    assert images.shape == (1, 1, 3, 64, 64)
    np.testing.assert_array_equal(masks[0, 0].numpy(), prompts[0].mask)


def test_order_of_prompts_does_not_matter(scene):
    plane, _, labels = scene
    image = plane[..., 0]
    boxes = [Box(3, 5), Box(100, 90, 80), Box(60, 120, 48)]
    several = [prompt_of(image, labels, box) for box in boxes]
    several.append(prompt_of(image, labels, Box(0, 0), negative=True))
    forth = run(plane, PromptSet(several), trust=True)
    back = run(plane, PromptSet(several[::-1]), trust=True)
    np.testing.assert_allclose(forth.maps.foreground, back.maps.foreground, atol=1e-5)
    assert forth.trust == pytest.approx(back.trust, abs=1e-6)


def test_only_negative_prompts_are_refused(scene):
    plane, _, labels = scene
    negative = prompt_of(plane[..., 0], labels, negative=True)
    with pytest.raises(PromptError, match=ALL_NEGATIVE):
        run(plane, PromptSet([negative]))


def test_prompt_and_query_channels_must_agree(scene, pattern):
    plane, prompts, _ = scene
    with pytest.raises(PromptError, match=pattern(OTHER_CHANNELS)):
        run(np.repeat(plane, 3, 2), prompts)


# ---------------------------------------------------------------- trust


def test_trust_is_high_where_the_query_is_alike_and_zero_where_nothing_is(scene):
    plane, prompts, _ = scene
    assert run(plane, prompts, trust=True).trust > 0.8
    assert math.isnan(run(plane, prompts, trust=False).trust)
    dark = np.full_like(plane, 100.0)
    ranges = intensity_range(plane)
    empty = predict(dark, prompts, Brightness(), "cpu", SegmentSettings(), ranges)
    assert empty.trust == 0


def test_trust_is_low_where_the_query_misleads(scene):
    """A query whose foreground has the prompt's background colour leads astray."""
    plane, prompts, _ = scene

    class Misled(Brightness):
        def forward(self, query, code):
            if query.shape[-1] > 64:  # the query itself, not the prompt's crop
                query = -query
            return super().forward(query, code)

    assert run(plane, prompts, Misled(), trust=True).trust < 0.4


def test_trust_costs_little(scene):
    plane, prompts, _ = scene
    network = Brightness()
    run(np.tile(plane, (3, 3, 1)), prompts, network, trust=True)
    pixels = [b * h * w for b, _, h, w in network.seen]
    assert pixels[-1] < 0.15 * sum(pixels)


def test_window_with_certain_foreground_is_chosen():
    foreground = np.zeros((300, 400), np.float32)
    foreground[200:230, 300:330] = 0.99
    foreground[20:60, 20:60] = 0.6
    y, x = most_confident_window(foreground, 64)
    assert y <= 200
    assert y + 64 >= 230
    assert x <= 300
    assert x + 64 >= 330
    assert most_confident_window(np.zeros((40, 40), np.float32), 64) is None
    assert most_confident_window(np.ones((40, 40), np.float32), 64) == (0, 0)


@pytest.mark.parametrize("sides", [(100, 5000), (1000, 24)])
def test_window_lies_inside(sides):
    height, side = sides
    foreground = np.zeros((height, height), np.float32)
    foreground[-3:, -3:] = 1
    y, x = most_confident_window(foreground, side)
    assert 0 <= y <= max(0, height - side)
    assert 0 <= x <= max(0, height - side)


# ---------------------------------------------------------------- progress


def test_progress_counts_tiles_and_parts_fill_the_image(scene):
    plane, prompts, _ = scene
    steps, covered = [], np.zeros(plane.shape[:2], bool)

    def show(part):
        tile, preview = part
        assert preview.dtype == np.uint8
        assert preview.shape == tile.shape
        covered[tile.slices] = True

    predict(
        plane,
        prompts,
        Brightness(),
        "cpu",
        SegmentSettings(tile=64, overlap=16),
        on_progress=lambda done, total, message="": steps.append((done, total)),
        on_partial=show,
    )
    total = steps[0][1]
    assert steps == [(n, total) for n in range(total + 1)]
    assert total > 9
    assert covered.all()


def test_cancel_between_tiles_and_the_mode_is_restored(scene):
    plane, prompts, _ = scene
    network = Brightness().train()

    def stop(done, total, message=""):
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        predict(
            plane,
            prompts,
            network,
            "cpu",
            SegmentSettings(tile=64, overlap=16),
            on_progress=stop,
        )
    assert len(network.seen) == len(prompts) + 2
    assert network.training


# ---------------------------------------------------------------- the objects' look


def test_prompts_are_looked_at_once_until_something_changes(scene):
    plane, prompts, _ = scene
    network = Brightness()

    def calls(prompts=prompts):
        before = len(network.seen)
        look = run(plane, prompts, network).maps.objects
        assert look.depth > 2 and look.diameter == pytest.approx(20, abs=1)
        return len(network.seen) - before

    assert calls() == 2  # the prompt, and the query
    assert calls() == 1
    with torch.no_grad():
        network.first.weight *= 1.01
    assert calls() == 2
    mask = np.where(prompts[0].mask == 1, 0, prompts[0].mask)
    assert calls(PromptSet([replace(prompts[0], mask=mask)])) == 2


def test_objects_of_another_size_are_told(scene):
    plane, prompts, _ = scene
    assert not any("much" in n for n in run(plane, prompts).notes)
    large, _ = discs(diameter=40)
    notes = run(large[..., None], prompts).notes
    assert any("much larger here than in the prompts" in n for n in notes)


# ---------------------------------------------------------------- memory


class Limited(Brightness):
    """Runs out of memory beyond a number of pixels."""

    def __init__(self, most):
        super().__init__()
        self.most = most

    def forward(self, query, code):
        if query.shape[0] * query.shape[2] * query.shape[3] > self.most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory (test)")
        return super().forward(query, code)


def test_tiles_shrink_when_memory_is_full_and_it_is_told(scene):
    plane, prompts, _ = scene
    plane = np.tile(plane, (3, 3, 1))
    wide = run(plane, prompts)
    small = run(plane, prompts, Limited(256 * 256), tile=512, overlap=16)
    assert small.notes[0] == SMALLER_TILES.format(side=352)
    assert len(small.notes) == 2  # and once more
    assert np.abs(wide.maps.foreground - small.maps.foreground).max() < 1e-3


def test_batch_is_halved_first():
    forward = Forward(Limited(3 * 64 * 64), choose("cpu"), overlap=16, radius=6)
    forward.batch = 8
    code = {"means": torch.tensor([[-1.0, 1.0]])}
    pieces = torch.randn(8, 3, 64, 64)
    maps = forward(pieces, code)
    assert maps.shape == (8, 2, 64, 64)
    assert forward.batch == 2
    assert forward.notes == [
        FEWER_TILES.format(n=4),
        FEWER_TILES.format(n=2),
    ]
    alone = Forward(Brightness(), choose("cpu"))
    torch.testing.assert_close(maps, torch.cat([alone(p[None], code) for p in pieces]))


def test_several_small_pieces_are_one_call_on_a_cpu_and_large_ones_are_not():
    class Counted(Brightness):
        calls = ()

        def forward(self, query, code):
            self.calls += (len(query),)
            return super().forward(query, code)

    network, code = Counted(), {"means": torch.tensor([[-1.0, 1.0]])}
    forward = Forward(network, choose("cpu"))
    forward(torch.randn(8, 3, 64, 64), code)
    forward(torch.randn(2, 3, 512, 512), code)
    assert network.calls == (8, 1, 1)


def test_after_full_memory_a_cpu_takes_small_pieces_one_by_one():
    forward = Forward(Limited(64 * 64), choose("cpu"), overlap=16, radius=6)
    code = {"means": torch.tensor([[-1.0, 1.0]])}
    pieces = torch.randn(8, 3, 64, 64)
    maps = forward(pieces, code)
    assert forward.notes == [FEWER_TILES.format(n=1)]
    alone = Forward(Brightness(), choose("cpu"))
    torch.testing.assert_close(maps, torch.cat([alone(p[None], code) for p in pieces]))


def test_no_way_out_is_one_clear_line(scene):
    plane, prompts, _ = scene
    with pytest.raises(MemoryError, match=NO_MEMORY):
        run(plane, prompts, Limited(10))


def test_other_errors_are_not_taken_for_full_memory(scene):
    plane, prompts, _ = scene

    class Broken(Brightness):
        def forward(self, query, code):
            raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        run(plane, prompts, Broken())


def test_an_answer_of_no_numbers_is_refused(tiny_model, disc_scene, disc_prompt):
    model = load_model(tiny_model)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.fill_(1e38)  # finite, but sums of them are not
    with pytest.raises(NoNumbersError):
        svpseg.segment(disc_scene.image, PromptSet([disc_prompt]), model)


# ----------------------------------------------------- objects of another size


def enlarged(times):
    """Return a scene, and another whose discs are ``times`` as large."""
    small, labels = discs((200, 200), diameter=18)
    large, truth = discs((400, 400), diameter=round(18 * times), seed=1)
    return PromptSet([prompt_of(small, labels)]), large[..., None], truth


@pytest.fixture(scope="module")
def svp():
    return load_model("svp").network


def test_larger_objects_are_found_at_the_size_of_the_prompts(svp):
    prompts, plane, truth = enlarged(3.5)
    found = run(plane, prompts, svp)
    plain = predict(plane, prompts, svp, "cpu", SegmentSettings(), zoom=1.0)
    assert found.scale < 0.6 * plain.scale
    assert found.notes[0].startswith(ZOOMED.split("{")[0]) and math.isnan(found.trust)
    assert found.maps.objects.diameter > 1.6 * plain.maps.objects.diameter
    labels = instances_from_maps(found.maps, PostprocessSettings())
    assert f1(labels, truth) > 0.9


def test_same_size_and_no_rescaling_leave_the_scale_alone(svp):
    prompts, plane, _ = enlarged(1)
    scale = network_scale(prompts, svp)
    assert run(plane, prompts, svp).scale == scale
    prompts, plane, _ = enlarged(3.5)
    assert run(plane, prompts, svp, scale_objects=False).scale == 1


def test_size_of_a_large_query_is_that_of_its_middle(svp, monkeypatch):
    monkeypatch.setattr(module, "SAMPLE_SIDE", 336)
    prompts, plane, _ = enlarged(3.5)
    lazy = Lazy(plane)
    zoom = query_zoom(lazy, prompts, svp, "cpu", intensities=intensity_range(plane))
    assert zoom < 0.6 and lazy.largest < plane.size
    assert run(plane, prompts, svp).scale == pytest.approx(
        zoom * network_scale(prompts, svp)
    )


@pytest.fixture(scope="module")
def svp_run():
    """Return a function that segments 230 x 230 pixels with `svp`, and its labels."""
    image, labels = discs((230, 230), diameter=24)
    prompts = PromptSet([prompt_of(image, labels, (3, 5 + 90 * k)) for k in range(2)])
    network = load_model("svp").network

    def segment() -> np.ndarray:
        fresh = copy.deepcopy(network)  # nothing is cached for it
        found = run(image[..., None], prompts, fresh)
        return instances_from_maps(found.maps, PostprocessSettings())

    return segment, segment()


@pytest.mark.parametrize("block", [300, 10**6])
def test_no_object_depends_on_the_blocks_of_the_attention(svp_run, monkeypatch, block):
    segment, expected = svp_run
    monkeypatch.setattr("napari_svpseg.models.svp.QUERY_BLOCK", block)
    assert expected.max() > 20 and np.array_equal(segment(), expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_no_object_depends_on_the_number_of_threads(svp_run, threads):
    segment, expected = svp_run
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert np.array_equal(segment(), expected)
    finally:
        torch.set_num_threads(before)
