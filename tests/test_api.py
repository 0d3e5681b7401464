"""segment() on planes, stacks and colours, with a network whose answer is known."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

import napari_svpseg as svpseg
from napari_svpseg import api
from napari_svpseg.core.image import (
    AXES_MISMATCH,
    AXES_UNKNOWN,
    EMPTY_IMAGE,
    ImageError,
)
from napari_svpseg.core.model_card import ModelCard
from napari_svpseg.core.planes import OTHER_CHANNELS
from napari_svpseg.core.progress import Cancelled
from napari_svpseg.core.prompt import (
    ALL_NEGATIVE,
    NO_PROMPT,
    Prompt,
    PromptError,
    PromptSet,
)
from napari_svpseg.core.settings import (
    DEVICE_NAMES,
    PostprocessSettings,
    SegmentSettings,
)
from napari_svpseg.engine.jobs.job import Event
from napari_svpseg.io.images import read_image
from napari_svpseg.io.label_files import write_labels
from napari_svpseg.models.base import PromptCode, PromptSegmenter
from napari_svpseg.workflows import segment_image

DISCS = ((20, 24, 7), (24, 70, 8), (66, 22, 9), (70, 66, 7), (48, 46, 6))


class Bright(PromptSegmenter):
    """Says foreground wherever the query is bright."""

    overlap = 0

    def encode_prompts(self, images: Tensor, masks: Tensor) -> PromptCode:
        return {"images": images.mean(dim=(1, 2, 3, 4))[:, None]}

    def forward(self, query: Tensor, code: PromptCode) -> dict[str, Tensor]:
        return {"foreground": 6 * query.mean(dim=1, keepdim=True)}


def discs(shift: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a 96 x 96 picture of five discs and its labels."""
    yy, xx = np.mgrid[:96, :96]
    labels = np.zeros((96, 96), np.int32)
    for i, (y, x, r) in enumerate(DISCS, 1):
        labels[(yy - y) ** 2 + (xx - x - shift) ** 2 <= r**2] = i
    noise = np.random.default_rng(shift).normal(0, 3, labels.shape)
    return (20 + 180 * (labels > 0) + noise).astype(np.float32), labels


@pytest.fixture
def model() -> SimpleNamespace:
    return SimpleNamespace(card=ModelCard("bright", "bright"), network=Bright())


@pytest.fixture
def prompt() -> Prompt:
    image, labels = discs()
    return Prompt.from_image(image, labels, (8, 8), name="discs", source="a.tif")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_plane_becomes_its_five_objects(model, prompt) -> None:
    image, truth = discs(3)
    result = svpseg.segment(image, prompt, model=model, device="cpu")
    assert result.labels.shape == (96, 96)
    assert result.labels.dtype == np.uint32
    assert result.n_objects == 5
    assert ((result.labels > 0) == (truth > 0)).mean() > 0.99
    assert 0 <= result.foreground.min() <= result.foreground.max() <= 1
    assert result.seconds > 0


def test_the_recipe_says_everything_and_survives_json(model, prompt) -> None:
    image, _ = discs()
    result = svpseg.segment(
        image,
        [prompt],
        model=model,
        device="cpu",
        min_area=5,
        settings=SegmentSettings(tile=128, trust=False),
    )
    recipe = result.recipe
    assert recipe.prompts[0]["name"] == "discs"
    assert recipe.prompts[0]["box"] == {"y": 8, "x": 8, "size": 64}
    assert recipe.segment["tile"] == 128
    assert recipe.segment["device"] == "cpu"
    assert recipe.postprocess["min_area"] == 5
    assert recipe.device.startswith("cpu")
    assert set(recipe.versions) >= {"torch", "numpy", "napari-svpseg", "python"}
    assert recipe.intensities[0][0] < recipe.intensities[0][1]
    assert type(recipe).from_json(recipe.to_json()) == type(recipe)(
        **json.loads(recipe.to_json())
        | {
            "prompts": recipe.prompts,
            "notes": recipe.notes,
            "intensities": recipe.intensities,
            "plane_intensities": recipe.plane_intensities,
            "channels": recipe.channels,
            "plane": recipe.plane,
            "other_planes": recipe.other_planes,
            "channel_files": recipe.channel_files,
        }
    )


@pytest.mark.parametrize("axes", ["ZYX", "TYX", "YXZ", "YZX"])
def test_stacks_equal_their_planes(model, prompt, axes) -> None:
    planes = [discs(shift)[0] for shift in (0, 2, 4)]
    stack = np.moveaxis(np.stack(planes), 0, axes.replace("T", "Z").index("Z"))
    result = svpseg.segment(stack, prompt, model=model, device="cpu", axes=axes)
    assert result.labels.shape == stack.shape == result.foreground.shape
    labels = np.moveaxis(result.labels, axes.replace("T", "Z").index("Z"), 0)
    seen: set[int] = set()
    for shift, plane in zip((0, 2, 4), labels, strict=True):
        ids = set(np.unique(plane[plane > 0]).tolist())
        assert len(ids) == 5
        assert not ids & seen, "one id in two planes would claim one object"
        seen |= ids
        assert ((plane > 0) == (discs(shift)[1] > 0)).mean() > 0.99
    assert result.n_objects == 15


def test_axes_with_x_before_y_are_not_transposed(model, prompt) -> None:
    image, _ = discs(5)
    plain = svpseg.segment(image, prompt, model=model, device="cpu")
    turned = svpseg.segment(image.T, prompt, model=model, device="cpu", axes="XY")
    np.testing.assert_array_equal(turned.labels.T > 0, plain.labels > 0)


def test_semantic_output_of_a_stack_is_one_class(model, prompt) -> None:
    stack = np.stack([discs(0)[0], discs(2)[0]])
    result = svpseg.segment(
        stack, prompt, model=model, device="cpu", labels="classes", axes="ZYX"
    )
    assert set(np.unique(result.labels)) == {0, 1}


def test_intensities_are_those_of_the_whole_stack(model, prompt) -> None:
    bright, dark = discs()[0], np.full((96, 96), 20, np.float32)
    both = svpseg.segment(
        np.stack([bright, dark]), prompt, model=model, device="cpu", axes="ZYX"
    )
    assert both.labels[1].max() == 0, "an empty plane must not become objects"
    assert both.labels[0].max() > 0


def test_a_part_with_the_intensities_of_the_whole_equals_the_whole(
    model, prompt
) -> None:
    image, _ = discs()
    whole = svpseg.segment(image, prompt, model=model, device="cpu")
    part = svpseg.segment(
        image[:48],
        prompt,
        model=model,
        device="cpu",
        intensities=np.array(whole.recipe.intensities),
    )
    np.testing.assert_allclose(part.foreground, whole.foreground[:48], atol=1e-5)


class Lazy:
    """An array that counts how much of it is read at once."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.largest = 0

    def __getitem__(self, index):
        part = self.array[index]
        self.largest = max(self.largest, part.size)
        return part


@pytest.mark.parametrize("shape", [(96, 96), (3, 96, 96)])
def test_lazy_arrays_are_read_in_pieces_with_the_same_result(
    model, prompt, shape
) -> None:
    array = np.broadcast_to(discs()[0], shape).copy()
    lazy, axes = Lazy(array), "ZYX"[3 - len(shape) :]
    settings = SegmentSettings(tile=64, overlap=16, scale_objects=False, device="cpu")
    a = svpseg.segment(lazy, prompt, model=model, axes=axes, settings=settings)
    b = svpseg.segment(array, prompt, model=model, axes=axes, settings=settings)
    np.testing.assert_array_equal(a.labels, b.labels)
    assert lazy.largest <= 96 * 96


def test_channels_follow_the_prompt(model) -> None:
    image, labels = discs()
    stack = np.stack([np.zeros_like(image), image], axis=-1)
    prompt = Prompt.from_image(stack, labels, (8, 8), channels=(1,))
    result = svpseg.segment(stack, prompt, model=model, device="cpu", axes="YXC")
    assert result.n_objects == 5
    assert result.recipe.channels == (1,)
    assert result.labels.shape == (96, 96)


def test_channels_first_and_time(model, prompt) -> None:
    image, _ = discs()
    movie = np.stack([np.stack([image * 0, image])] * 2)
    result = svpseg.segment(
        movie, prompt, model=model, device="cpu", axes="TCYX", channels=(1,)
    )
    assert result.labels.shape == (2, 96, 96)
    assert result.n_objects == 10


@pytest.mark.parametrize("n", [3, 4])
def test_colour_prompts_take_rgb_and_rgba_queries(model, n) -> None:
    image, labels = discs()
    rgb = np.repeat(image[..., None], 3, axis=2).clip(0, 255).astype(np.uint8)
    prompt = Prompt.from_image(rgb, labels, (8, 8))
    alpha = np.full((96, 96, 1), 255, np.uint8)
    query = np.concatenate([rgb, alpha], axis=2)[..., :n]
    result = svpseg.segment(query, prompt, model=model, device="cpu")
    assert result.n_objects == 5


def test_other_channels_than_the_prompts_are_named(model, prompt, pattern) -> None:
    rgb = np.zeros((96, 96, 3), np.uint8)
    with pytest.raises(ImageError, match=pattern(OTHER_CHANNELS, n=1)):
        svpseg.segment(rgb, prompt, model=model, device="cpu", axes="YXC")


def test_unclear_axes_are_asked_for_not_guessed(model, prompt, pattern) -> None:
    with pytest.raises(ImageError, match=pattern(AXES_UNKNOWN, ndim=3)):
        svpseg.segment(np.zeros((3, 96, 96)), prompt, model=model, device="cpu")
    with pytest.raises(ImageError, match=pattern(AXES_MISMATCH, n=3, ndim=2)):
        svpseg.segment(
            np.zeros((96, 96)), prompt, model=model, device="cpu", axes="ZYX"
        )
    with pytest.raises(ImageError, match=pattern(EMPTY_IMAGE)):
        svpseg.segment(
            np.zeros((0, 96, 96)), prompt, model=model, device="cpu", axes="ZYX"
        )


@pytest.mark.parametrize(
    "query",
    [
        np.full((40, 40), 7, np.uint8),
        np.zeros((1, 1)),
        np.full((30, 200), np.nan),
        np.ones((33, 17), bool),
        np.arange(64 * 70, dtype=np.int32).reshape(64, 70) - 1000,
        np.full((40, 40), np.inf, np.float32),
        np.random.default_rng(0).integers(0, 65535, (20, 90), np.uint16),
    ],
    ids=["constant", "1x1", "nan", "bool", "int32", "inf", "uint16"],
)
def test_strange_queries_give_labels_of_their_shape(model, prompt, query) -> None:
    result = svpseg.segment(query, prompt, model=model, device="cpu")
    assert result.labels.shape == query.shape
    assert np.isfinite(result.foreground).all()


def test_no_usable_prompt_is_said(model, prompt) -> None:
    image, _ = discs()
    negative = Prompt.from_image(image, None, (8, 8), negative=True)
    for prompts, text in [
        ([], NO_PROMPT),
        ([replace(prompt, enabled=False)], NO_PROMPT),
        (negative, ALL_NEGATIVE),
    ]:
        with pytest.raises(PromptError, match=text):
            svpseg.segment(image, prompts, model=model, device="cpu")


def test_settings_are_checked_by_name_and_range(model, prompt) -> None:
    image, _ = discs()
    with pytest.raises(TypeError, match="treshold"):
        svpseg.segment(image, prompt, model=model, treshold=0.5)
    with pytest.raises(ValueError, match=r"0\.05 to 0\.95"):
        svpseg.segment(image, prompt, model=model, threshold=2)
    with pytest.raises(ValueError, match=DEVICE_NAMES):
        svpseg.segment(image, prompt, model=model, device="tpu")
    with pytest.raises(ValueError, match="objects, classes"):
        svpseg.segment(image, prompt, model=model, labels="boxes")


def test_an_unknown_model_is_named(prompt) -> None:
    with pytest.raises(ValueError, match="no-such-model"):
        svpseg.segment(discs()[0], prompt, model="no-such-model", device="cpu")


def test_postprocess_repeats_the_run_without_the_model(model, prompt) -> None:
    stack = np.stack([discs(0)[0], discs(2)[0]])
    result = svpseg.segment(stack, prompt, model=model, device="cpu", axes="ZYX")
    again = svpseg.postprocess(result.maps)
    np.testing.assert_array_equal(again, result.labels)
    larger = svpseg.postprocess(result.maps, min_area=200)
    assert 0 < np.unique(larger).size < np.unique(again).size


def test_postprocess_runs_as_a_job_and_reports(model, prompt, in_process) -> None:
    stack = np.stack([discs(0)[0], discs(2)[0]])
    result = svpseg.segment(stack, prompt, model=model, device="cpu", axes="ZYX")
    events: list[Event] = []
    job = in_process.submit(
        api.postprocess,
        result.maps,
        axes="ZYX",
        min_area=200,
        on_event=events.append,
    )
    expected = svpseg.postprocess(result.maps, min_area=200)
    np.testing.assert_array_equal(job.result(60), expected)
    assert [e.kind for e in events if e.kind == "partial"] == ["partial"] * 2
    assert events[-1].is_end


def test_progress_runs_to_its_end_and_can_stop(model, prompt) -> None:
    stack = np.stack([discs(0)[0]] * 3)
    seen: list[tuple[int, int, str]] = []
    svpseg.segment(
        stack,
        prompt,
        model=model,
        device="cpu",
        axes="ZYX",
        on_progress=lambda *a: seen.append(a),
    )
    done = [d / t for d, t, _ in seen]
    assert done == sorted(done)
    assert done[-1] == 1
    assert "plane 3 of 3" in seen[-1][2]

    def stop(done: int, total: int, message: str = "") -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        svpseg.segment(stack, prompt, model=model, axes="ZYX", on_progress=stop)


def test_finished_planes_are_shown_while_the_rest_runs(model, prompt) -> None:
    stack = np.stack([discs(0)[0], discs(2)[0]])
    parts: list = []
    result = svpseg.segment(
        stack, prompt, model=model, device="cpu", axes="ZYX", on_partial=parts.append
    )
    assert [index for index, _ in parts] == [(0,), (1,)]
    for index, labels in parts:
        np.testing.assert_array_equal(labels, result.labels[index])


def test_a_file_becomes_labels_with_pixel_size_and_recipe(
    model, prompt, tmp_path, read_recipe
) -> None:
    image, _ = discs(1)
    source = write_labels(
        tmp_path / "cells.ome.tif",
        image.astype(np.uint16),
        pixel_size=(0.5, 0.5),
        unit="um",
    )
    out = tmp_path / "new" / "out"
    outcome = api.segment_file(source, PromptSet([prompt]), out, model, "cpu")
    assert outcome.objects == 5
    assert outcome.labels.endswith("cells_labels.ome.tif")
    written = read_image(outcome.labels)
    assert written.array.shape == (96, 96)
    assert tuple(written.pixel_size) == pytest.approx((0.5, 0.5))
    recipe = read_recipe(outcome.labels)
    assert recipe is not None
    assert recipe.query_file == str(source)
    assert recipe.prompts[0]["name"] == "discs"


def test_done_files_are_skipped_and_failed_ones_leave_nothing(
    model, prompt, tmp_path
) -> None:
    source = write_labels(tmp_path / "a.tif", discs(1)[0].astype(np.uint16))
    out = tmp_path / "out"
    first = api.segment_file(source, prompt, out, model, "cpu", skip_done=True)
    again = api.segment_file(source, prompt, out, model, "cpu", skip_done=True)
    assert not first.skipped
    assert again.skipped
    broken = tmp_path / "b.tif"
    broken.write_bytes(source.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"b\.tif"):
        api.segment_file(broken, prompt, out, model, "cpu")
    assert [p.name for p in out.iterdir()] == ["a_labels.ome.tif"]


def test_loaded_networks_stay_warm_and_few(monkeypatch, tmp_path, prompt) -> None:
    loads: list[str] = []

    def find(name: str) -> ModelCard:
        return ModelCard(name, "bright", sha256=name, path=str(tmp_path / name))

    def load(path: str) -> SimpleNamespace:
        loads.append(path)
        return SimpleNamespace(card=find(path.split("/")[-1]), network=Bright())

    monkeypatch.setattr("napari_svpseg.io.model_store.find_model", find)
    monkeypatch.setattr("napari_svpseg.io.model_store.load_model", load)
    monkeypatch.setattr(segment_image, "_loaded", {})
    image, _ = discs()
    quick = SegmentSettings(device="cpu", trust=False)
    for name in "aabac":
        svpseg.segment(image, prompt, model=name, settings=quick)
    assert [path.split("/")[-1] for path in loads] == ["a", "b", "c"]
    for name in "defg":
        svpseg.segment(image, prompt, model=name, settings=quick)
    assert len(segment_image._loaded) == segment_image.MAX_LOADED


FIELDS = {f.name: f for k in (SegmentSettings, PostprocessSettings) for f in fields(k)}
OF_MAPS = {f.name for f in fields(PostprocessSettings)}


@pytest.mark.parametrize(
    "function",
    [svpseg.segment, svpseg.segment_file, svpseg.segment_zarr, svpseg.postprocess],
)
def test_keywords_are_the_settings_declared_as_such(function) -> None:
    """The rule: a setting has a keyword if its declaration says so, else none."""
    parameters = inspect.signature(function).parameters
    wanted = {
        name
        for name, f in FIELDS.items()
        if f.metadata["keyword"]
        and (function is not svpseg.postprocess or name in OF_MAPS)
    }
    assert len(wanted) >= 5
    assert {name for name in parameters if name in FIELDS} == wanted
    for name in wanted:
        kind = FIELDS[name].type.removesuffix(" | None")
        assert parameters[name].annotation == f"{kind} | None"
        assert parameters[name].default is None, "the default stands with the setting"
    assert not [p for p in parameters.values() if p.kind is p.VAR_KEYWORD]


def test_keywords_replace_fields_of_the_settings_objects(model, prompt) -> None:
    result = svpseg.segment(
        discs()[0],
        prompt,
        model=model,
        device="cpu",
        threshold=0.4,
        settings=SegmentSettings(device="cuda:7", tile=128),
        postprocess=PostprocessSettings(threshold=0.9, min_area=3),
    )
    post, run = result.recipe.postprocess, result.recipe.segment
    assert (post["threshold"], post["min_area"], post["labels"]) == (0.4, 3, "objects")
    assert (run["device"], run["tile"]) == ("cpu", 128)
