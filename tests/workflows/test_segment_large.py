"""Large images: the same labels whatever the blocks, the workers and their luck."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from napari_svpseg import api
from napari_svpseg.cli.main import main
from napari_svpseg.core.contrast import DRIFTING
from napari_svpseg.core.image import ImageError
from napari_svpseg.core.progress import Cancelled
from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.core.settings import PostprocessSettings, SegmentSettings
from napari_svpseg.engine.jobs.workers import workers_of
from napari_svpseg.io.atomic import REASONS, WriteError
from napari_svpseg.io.ome_zarr import open_image
from napari_svpseg.io.prompt_files import save_prompts
from napari_svpseg.io.zarr_labels import read_labels_metadata
from napari_svpseg.workflows import large_tasks
from napari_svpseg.workflows.large_tasks import (
    BEYOND_HALO,
    STARTED_ANEW,
    WHOLE_FILES,
)
from napari_svpseg.workflows.segment_large import (
    CHANGED_MEANWHILE,
    COMPARING,
    FINDING,
    segment_zarr,
)

SMALL = {
    "settings": SegmentSettings(tile=64, overlap=32, scale_objects=False),
    "postprocess": PostprocessSettings(min_area=5),
}


def field(shape=(150, 200), seed=0):
    """Return an image of touching and single discs, and its labels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.int32)
    for i in range(shape[0] * shape[1] // 500):
        cy, cx, r = *(rng.random(2) * shape), rng.uniform(5, 9)
        labels[((y - cy) ** 2 + (x - cx) ** 2 <= r**2) & (labels == 0)] = i + 1
    image = 20 + 150 * (labels > 0) + rng.normal(0, 4, shape)
    return image.clip(0, 255).astype(np.uint8), labels


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Return a folder with a plane, a stack, and a prompt of them."""
    folder = tmp_path_factory.mktemp("large")
    image, labels = field()
    zarr.create_array(folder / "plane.zarr", data=image, chunks=(64, 64))
    stack = np.stack([np.roll(image, 2 * z, axis=0)[:90, :110] for z in range(3)])
    zarr.create_array(folder / "stack.zarr", data=stack, chunks=(1, 64, 64))
    return folder, Prompt.from_image(image, labels, (40, 60), name="discs")


def run(scene, out, source="plane.zarr", model=None, **more):
    folder, prompt = scene
    outcome = segment_zarr(
        folder / source,
        prompt,
        out,
        model,
        **{"workers": 0, "block": 64, "halo": 24} | SMALL | more,
    )
    return np.asarray(open_image(outcome.labels).array[:]), outcome


def test_labels_are_those_of_the_image_in_memory(scene, tiny_model, tmp_path):
    folder, prompt = scene
    labels, outcome = run(scene, tmp_path / "a.zarr", model=tiny_model, halo=64)
    image = np.asarray(open_image(folder / "plane.zarr").array[:])
    kept = dict(read_labels_metadata(tmp_path / "a.zarr", "cells"))["recipe"][
        "intensities"
    ]
    result = api.segment(
        image, prompt, tiny_model, intensities=np.asarray(kept), **SMALL
    )
    assert outcome.objects == labels.max() > 3
    assert abs(outcome.objects - result.n_objects) <= 0.1 * outcome.objects + 1
    assert np.mean((labels > 0) == (result.labels > 0)) > 0.99
    assert not (tmp_path / "a.zarr.cells.work").exists()


def test_a_bleaching_movie_has_the_same_ranges_in_parts(scene, tiny_model, tmp_path):
    folder, prompt = scene
    image = np.asarray(open_image(folder / "plane.zarr").array[:]).astype(np.float32)
    movie = np.stack([20 + (image - 20) * share for share in (1, 0.4, 0.15)])
    zarr.create_array(tmp_path / "movie.zarr", data=movie, chunks=(1, 64, 64))
    outcome = segment_zarr(
        tmp_path / "movie.zarr",
        prompt,
        tmp_path / "l.zarr",
        tiny_model,
        axes="TYX",
        workers=0,
        **SMALL,
    )
    kept = read_labels_metadata(tmp_path / "l.zarr", "cells")["recipe"]
    whole = api.segment(movie, prompt, tiny_model, axes="TYX", **SMALL)
    assert len(kept["plane_intensities"]) == 3
    np.testing.assert_allclose(
        kept["plane_intensities"], whole.recipe.plane_intensities, rtol=0.05
    )
    assert DRIFTING in outcome.notes and DRIFTING in whole.recipe.notes
    again = api.segment(
        movie,
        prompt,
        tiny_model,
        axes="TYX",
        intensities=whole.recipe.plane_intensities,
        **SMALL,
    )
    assert np.array_equal(again.labels, whole.labels)
    assert type(whole.recipe).from_json(whole.recipe.to_json()) == whole.recipe


@settings(
    max_examples=4,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.integers(1, 300), st.sampled_from(["plane.zarr", "stack.zarr"]))
def test_labels_do_not_depend_on_the_size_of_tasks(
    scene, tiny_model, tmp_path_factory, task, source
):
    folder = tmp_path_factory.mktemp("laws")
    more = {"axes": "ZYX", "link_planes": True} if source == "stack.zarr" else {}
    one, _ = run(scene, folder / "a.zarr", source, tiny_model, task=64, **more)
    two, _ = run(scene, folder / "b.zarr", source, tiny_model, task=task, **more)
    assert one.max() > 3 and np.array_equal(one, two)


def test_planes_are_linked_as_in_memory(scene, tiny_model, tmp_path):
    apart, _ = run(scene, tmp_path / "a.zarr", "stack.zarr", tiny_model, axes="ZYX")
    linked, _ = run(
        scene,
        tmp_path / "b.zarr",
        "stack.zarr",
        tiny_model,
        axes="ZYX",
        link_planes=True,
    )
    from napari_svpseg.core.labels.linking import link_planes

    assert np.array_equal(linked, link_planes(apart, 0, 0.25))
    assert linked.max() < apart.max()


def test_a_cancelled_run_goes_on_where_it_was(scene, tiny_model, tmp_path):
    whole, _ = run(scene, tmp_path / "a.zarr", model=tiny_model)

    def stop(done, total, message=""):
        if message == FINDING and done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(scene, tmp_path / "b.zarr", model=tiny_model, task=64, on_progress=stop)
    work = tmp_path / "b.zarr.cells.work"
    kept = {p: p.stat().st_mtime_ns for p in work.glob("ta*/*") if p.is_file()}
    kept |= {p: p.stat().st_mtime_ns for p in work.glob("tiles.done/*")}
    assert len(list(work.glob("tables/*"))) == 2
    assert not (tmp_path / "b.zarr" / "labels").exists()
    (work / "tiles.done" / ".1234-0-0-0.json").write_text('{"dev')  # by a killed worker
    seen = []

    def look(done, total, message=""):
        if message == COMPARING and done == 0:
            seen.extend(p.stat().st_mtime_ns == t for p, t in kept.items())

    labels, _ = run(
        scene, tmp_path / "b.zarr", model=tiny_model, task=128, on_progress=look
    )
    assert seen and all(seen)  # nothing was done twice
    assert np.array_equal(labels, whole)
    again, outcome = run(scene, tmp_path / "b.zarr", model=tiny_model, skip_done=True)
    assert outcome.skipped and np.array_equal(again, whole)
    _, outcome = run(
        scene, tmp_path / "b.zarr", model=tiny_model, skip_done=True, threshold=0.4
    )
    assert not outcome.skipped  # another recipe is another run


def stop_at(stage):
    def stop(done, total, message=""):
        if message == stage:
            raise Cancelled

    return stop


def test_a_replaced_image_is_another_run(scene, tiny_model, tmp_path):
    """Of a run that was stopped, and of one that is done; copies are the same image."""
    old = field()[0]
    new = np.where(np.arange(200) < 100, old, 255 - old)
    image, out = tmp_path / "i.zarr", tmp_path / "b.zarr"
    for name, pixels in (("i", old), ("copy", old), ("new", new)):
        zarr.create_array(tmp_path / f"{name}.zarr", data=pixels, chunks=(64, 64))
    here = tmp_path, scene[1]
    whole, _ = run(here, tmp_path / "a.zarr", "new.zarr", tiny_model)
    with pytest.raises(Cancelled):
        run(here, out, "i.zarr", tiny_model, on_progress=stop_at(COMPARING))
    note = STARTED_ANEW.format(work=tmp_path / "b.zarr.cells.work")
    zarr.open_array(image)[:] = new
    labels, outcome = run(here, out, "i.zarr", tiny_model)
    assert note in outcome.notes and np.array_equal(labels, whole)
    assert run(here, out, "i.zarr", tiny_model, skip_done=True)[1].skipped
    assert run(here, out, "new.zarr", tiny_model, skip_done=True)[1].skipped
    again, outcome = run(here, out, "copy.zarr", tiny_model, skip_done=True)
    assert not outcome.skipped and not np.array_equal(again, labels)


def test_an_image_that_was_moved_is_gone_on_with(scene, tiny_model, tmp_path):
    shutil.copytree(scene[0] / "plane.zarr", tmp_path / "i.zarr")
    here, out = (tmp_path, scene[1]), tmp_path / "b.zarr"
    with pytest.raises(Cancelled):
        run(here, out, "i.zarr", tiny_model, on_progress=stop_at(FINDING))
    (tmp_path / "i.zarr").rename(tmp_path / "moved.zarr")
    large_tasks._plan.cache_clear()
    large_tasks._planes.cache_clear()
    labels, outcome = run(here, out, "moved.zarr", tiny_model)
    anew = STARTED_ANEW.format(work=tmp_path / "b.zarr.cells.work")
    assert anew not in outcome.notes and labels.max() > 3


def test_labels_in_the_image_are_no_part_of_it(scene, tiny_model, tmp_path):
    from ome_zarr.writer import write_image

    image = tmp_path / "i.zarr"
    write_image(field()[0], zarr.open_group(image, mode="w"), axes="yx", scaler=None)
    here = tmp_path, scene[1]
    _, outcome = run(here, None, "i.zarr", tiny_model)
    assert (image / "labels" / "cells").is_dir() and not outcome.skipped
    assert run(here, None, "i.zarr", tiny_model, skip_done=True)[1].skipped


def test_an_image_that_changes_meanwhile_is_refused(
    scene, tiny_model, tmp_path, pattern
):
    shutil.copytree(scene[0] / "plane.zarr", tmp_path / "i.zarr")

    def change(done, total, message=""):
        if message == COMPARING and done == 0:
            zarr.open_array(tmp_path / "i.zarr")[:9] = 0

    with pytest.raises(ImageError, match=pattern(CHANGED_MEANWHILE)):
        run(
            (tmp_path, scene[1]),
            tmp_path / "b.zarr",
            "i.zarr",
            tiny_model,
            on_progress=change,
        )
    assert not (tmp_path / "b.zarr" / "labels").exists()


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(
    scene, tiny_model, tmp_path, monkeypatch, pattern
):
    whole, _ = run(scene, tmp_path / "a.zarr", model=tiny_model)
    savez = np.savez

    def full(path, **arrays):
        if "tables" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        savez(path, **arrays)

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(WriteError, match=pattern(REASONS[errno.ENOSPC])) as caught:
        run(scene, tmp_path / "b.zarr", model=tiny_model)
    assert str(tmp_path / "b.zarr") in str(caught.value)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    labels, outcome = run(scene, tmp_path / "b.zarr", model=tiny_model)
    anew = STARTED_ANEW.format(work=tmp_path / "b.zarr.cells.work")
    assert np.array_equal(labels, whole) and anew not in outcome.notes


def test_empty_parts_are_not_stored(scene, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(large_tasks, "NOTHING", 250)  # this model was never trained
    image = np.zeros((200, 260), np.uint8)
    image[:60, :60] = field((60, 60))[0]
    zarr.create_array(tmp_path / "sparse.zarr", data=image, chunks=(64, 64))
    here = tmp_path, scene[1]
    work = tmp_path / "a.zarr.cells.work"

    def stop(done, total, message=""):
        if message == COMPARING:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(here, tmp_path / "a.zarr", "sparse.zarr", tiny_model, on_progress=stop)
    stored = {
        part: sum(p.is_file() for p in (work / part / "c").rglob("*"))
        for part in ("tiles", "blocks")
    }
    assert 0 < stored["tiles"] <= 9 < 6 * 8  # those that see a disc
    labels, _ = run(here, tmp_path / "a.zarr", "sparse.zarr", tiny_model)
    other, _ = run(here, tmp_path / "b.zarr", "sparse.zarr", tiny_model, task=64)
    assert labels[:60, :60].any() and not labels[100:, 100:].any()
    assert np.array_equal(labels, other)


STACK = {"axes": "ZYX", "link_planes": True}


@pytest.fixture(scope="module")
def alone(scene, tiny_model, tmp_path_factory):
    """Return the labels of a plane and of a stack made without workers."""
    folder = tmp_path_factory.mktemp("alone")
    return {
        source: run(scene, folder / source, source, tiny_model, **more)[0]
        for source, more in (("plane.zarr", {}), ("stack.zarr", STACK))
    }


@settings(
    max_examples=2,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    st.sampled_from([1, 2, 4]),
    st.sampled_from([64, 128]),
    st.sampled_from(["plane.zarr", "stack.zarr"]),
)
@example(4, 64, "plane.zarr")
@example(2, 64, "stack.zarr")
def test_labels_do_not_depend_on_the_number_of_workers(
    scene, tiny_model, tmp_path_factory, pool, alone, workers, task, source
):
    out = tmp_path_factory.mktemp("workers") / "labels.zarr"
    pool.scale_to(workers)
    labels, _ = run(
        scene,
        out,
        source,
        tiny_model,
        scheduler=pool.client,
        task=task,
        **(STACK if source == "stack.zarr" else {}),
    )
    assert labels.max() > 3 and np.array_equal(labels, alone[source])


@pytest.fixture(scope="module")
def pool():
    """Return workers that are threads of this process, so that they start at once."""
    from distributed import Client, LocalCluster

    class Pool:
        def scale_to(self, n):
            cluster.scale(n)
            client.sync(cluster._correct_state)
            client.wait_for_workers(n)

    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=False,
            dashboard_address=None,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        made = Pool()
        made.client = client
        yield made


def test_a_killed_worker_costs_its_part_only(scene, tiny_model, tmp_path, alone):
    marks = tmp_path / "b.zarr.cells.work" / "tables"
    killed, kept, after = [], {}, {}
    with workers_of(workers=2, folder=str(tmp_path / "dask")) as client:
        assert client.scheduler.address.startswith("tls://127.0.0.1")

        def kill(done, total, message=""):
            if message == FINDING and done >= 3 and not killed:
                killed.append(next(iter(client.run(os.getpid).values())))
                os.kill(killed[0], getattr(signal, "SIGKILL", signal.SIGTERM))
                kept.update((p, p.stat().st_mtime_ns) for p in marks.glob(WHOLE_FILES))
            if message == COMPARING and done == 0:
                after.update((p, p.stat().st_mtime_ns) for p in marks.glob(WHOLE_FILES))

        labels, _ = run(
            scene,
            tmp_path / "b.zarr",
            model=tiny_model,
            scheduler=client,
            task=64,
            on_progress=kill,
        )
    assert killed and np.array_equal(labels, alone["plane.zarr"])
    assert len(after) > 10 and len(kept) >= 3
    assert kept.items() <= after.items()  # what was done was not done again


def test_a_halo_too_small_for_the_objects_is_told_of(
    scene, tiny_model, tmp_path, pattern
):
    wide, _ = run(scene, tmp_path / "a.zarr", model=tiny_model, halo=64)
    none, outcome = run(scene, tmp_path / "b.zarr", model=tiny_model, halo=0)
    assert none.max() > wide.max()
    note = pattern(BEYOND_HALO, halo=0)
    assert any(re.fullmatch(note, n) for n in outcome.notes)


def test_semantic_output_and_bad_arguments(scene, tiny_model, tmp_path):
    labels, _ = run(scene, tmp_path / "a.zarr", model=tiny_model, labels="classes")
    assert set(np.unique(labels)) == {0, 1}
    with pytest.raises(ValueError, match=r"'\.\./x'"):
        run(scene, tmp_path / "a.zarr", model=tiny_model, name="../x")
    for option, value in (
        ("block", 4),
        ("halo", -1),
        ("task", 0),
        ("workers", -1),
        ("level", -1),
    ):
        with pytest.raises(ValueError, match=f"{option} must be .* got {value}"):
            run(scene, tmp_path / "a.zarr", model=tiny_model, **{option: value})


def test_what_is_too_large_is_refused_before_memory_is_taken(
    scene, tiny_model, tmp_path
):
    _, prompt = scene
    zarr.create_array(tmp_path / "big.zarr", shape=(10**6, 10**6), dtype="u2")
    with pytest.raises(ImageError, match=r"big\.zarr"):
        api.segment_zarr(tmp_path / "big.zarr", prompt, tmp_path / "l", str(tiny_model))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["big.zarr"]
    query = zarr.open(tmp_path / "big.zarr", mode="r")
    with pytest.raises(ImageError, match="segment_zarr"):
        api.segment(query, prompt, str(tiny_model), axes="YX")


def test_command_line(scene, tiny_model, tmp_path, capsys):
    folder, prompt = scene
    save_prompts(PromptSet([prompt]), tmp_path / "discs.svprompt")
    words = [
        "segment",
        str(folder / "plane.zarr"),
        "--prompts",
        str(tmp_path / "discs.svprompt"),
        "-o",
        str(tmp_path / "l.zarr"),
        "--model",
        str(tiny_model),
        "--workers",
        "0",
        "--name",
        "discs",
        "--skip-done",
    ]
    assert main(words) == 0
    assert "objects" in capsys.readouterr().out
    written = open_image(tmp_path / "l.zarr")
    assert written.array.shape == (150, 200)
    assert main(words) == 0
    assert "done already" in capsys.readouterr().out
    assert main([*words[:1], words[1], *words[1:]]) == 2
    assert "several images go into a folder" in capsys.readouterr().err
