"""Several images, and planes of a stack, segmented side by side."""

from __future__ import annotations

import threading
import time
from itertools import count

import numpy as np
import pytest
import torch

import napari_svpseg as svpseg
from napari_svpseg.core.progress import Cancelled
from napari_svpseg.core.prompt import Prompt
from napari_svpseg.core.settings import SegmentSettings
from napari_svpseg.engine.inference import predict as predict_module
from napari_svpseg.workflows.segment_several import segment_several


@pytest.fixture(autouse=True)
def two_threads():
    """Let torch use two threads, on any machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return [rng.random((70 + 5 * i, 90), np.float32) for i in range(5)]


def prompt_of(image):
    mask = np.zeros(image.shape, np.int32)
    mask[10:30, 10:30] = 1
    return Prompt.from_image(image, mask, (2, 4))


def calls_of(images, model, **settings):
    options = {"model": str(model), "settings": SegmentSettings("cpu", **settings)}
    return [((image, prompt_of(images[0])), options) for image in images]


def test_each_image_comes_out_as_by_itself(images, tiny_svp):
    found, told, seconds = {}, [], []

    def take(done):
        found[done.index] = done.result
        seconds.append(done.seconds)

    start = time.perf_counter()
    segment_several(
        calls_of(images, tiny_svp),
        on_progress=lambda *what: told.append(what),
        on_partial=take,
    )
    assert list(found) == [0, 1, 2, 3, 4]  # as they were given
    assert 0 < sum(seconds) <= time.perf_counter() - start
    assert set(found) == set(range(5)) and told[0] == (0, 5, "")
    assert told[-1] == (5, 5, "")
    for i, image in enumerate(images):
        alone = svpseg.segment(
            image, prompt_of(images[0]), str(tiny_svp), settings=SegmentSettings("cpu")
        )
        assert np.array_equal(found[i].labels, alone.labels)
        assert np.allclose(found[i].maps.foreground, alone.maps.foreground, atol=1e-5)
        assert found[i].trust == pytest.approx(alone.trust, abs=1e-4)


def test_an_image_that_fails_does_not_stop_the_others(images, tiny_svp):
    images[1] = np.zeros((70, 90, 7), np.float32)
    found = {}
    segment_several(
        calls_of(images, tiny_svp),
        on_partial=lambda done: found.update({done.index: done}),
    )
    assert [found[i].result is None for i in range(5)] == [False, True] + [False] * 3
    assert "axes" in found[1].error and "\n" not in found[1].error


def test_stopping_leaves_no_image_in_work(images, tiny_svp):
    found = []

    def stop_after_one(done, total, message):
        if done:
            raise Cancelled

    with pytest.raises(Cancelled):
        segment_several(
            calls_of(images, tiny_svp),
            on_progress=stop_after_one,
            on_partial=found.append,
        )
    assert 1 <= len(found) < 5
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("svpseg-several")]


def test_planes_run_side_by_side_and_come_out_as_by_themselves(
    images, tiny_svp, monkeypatch
):
    stack = np.stack([image[:70] for image in images])
    prompt, options = prompt_of(images[0]), SegmentSettings("cpu", scale_objects=False)
    plain, numbers, together = predict_module.predict, count(), threading.Barrier(2)

    def predict(*args, **kwargs):
        if next(numbers) < 2:
            together.wait(20)  # goes on only with two planes in work
        return plain(*args, **kwargs)

    monkeypatch.setattr(predict_module, "predict", predict)
    told, shown = [], []
    result = svpseg.segment(
        stack,
        prompt,
        str(tiny_svp),
        axes="ZYX",
        settings=options,
        link_planes=False,
        on_progress=lambda *what: told.append(what),
        on_partial=lambda part: shown.append(part[0]),
    )
    assert shown == [(i,) for i in range(5)]
    assert told[0] == (0, 5, "plane 1 of 5") and told[-1] == (5, 5, "plane 5 of 5")
    ranges = np.array(result.recipe.intensities)
    last = 0
    for i, plane in enumerate(stack):
        alone = svpseg.segment(
            plane, prompt, str(tiny_svp), intensities=ranges, settings=options
        )
        wanted = np.where(alone.labels > 0, alone.labels + last, 0)
        assert np.array_equal(result.labels[i], wanted)
        last = max(last, int(wanted.max()))


def test_a_stack_is_read_by_one_thread_at_a_time(images, tiny_svp):
    stack, readers = np.stack([image[:70] for image in images]), set()

    class Lazy:
        shape, dtype, ndim = stack.shape, stack.dtype, 3

        def __getitem__(self, region):
            readers.add(threading.get_ident())
            return stack[region]

    svpseg.segment(Lazy(), prompt_of(images[0]), str(tiny_svp), "cpu", axes="ZYX")
    assert threading.get_ident() in readers and len(readers) <= 2


def test_a_plane_that_fails_ends_the_stack(images, tiny_svp, monkeypatch):
    stack, plain, numbers = np.stack([i[:70] for i in images]), [], count()
    plain.append(predict_module.predict)

    def predict(*args, **kwargs):
        if next(numbers) == 2:
            raise MemoryError("full")
        return plain[0](*args, **kwargs)

    monkeypatch.setattr(predict_module, "predict", predict)
    with pytest.raises(MemoryError, match="full"):
        svpseg.segment(stack, prompt_of(images[0]), str(tiny_svp), "cpu", axes="ZYX")
