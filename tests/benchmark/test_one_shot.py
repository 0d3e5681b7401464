from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage
from skimage.io import imread, imsave

from napari_svpseg.benchmark import one_shot
from napari_svpseg.benchmark.baselines import NEEDS_IMAGES, Answer, Query
from napari_svpseg.benchmark.one_shot import NO_MODEL
from napari_svpseg.benchmark.one_shot_tasks import NO_TASK, BenchmarkSettings
from napari_svpseg.core.prompt import Prompt
from napari_svpseg.io.ownership import SEAL, WRITTEN

pytest.importorskip("sklearn")

FIELDS = {
    "dataset",
    "class",
    "model",
    "draw",
    "query",
    "dice",
    "iou",
    "f1",
    "ap",
    "seconds",
    "peak_mb",
}


def draw_cells(seed: int, side: int = 112, radius: int = 8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    labels = np.zeros((side, side), np.uint16)
    for i in range(1, 40):
        cy, cx = rng.integers(0, side, 2)
        where = (y - cy) ** 2 + (x - cx) ** 2 <= radius**2
        if not labels[where].any():
            labels[where] = i
    return labels


def write_dataset(
    folder: Path, labels: list[np.ndarray], head: str, *, rgb: bool = False
) -> Path:
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for i, truth in enumerate(labels):
        noise = np.random.default_rng(i).normal(0, 5, truth.shape)
        bright = ndimage.gaussian_filter((truth > 0).astype(float), 1)
        image = np.clip(40 + 120 * bright + noise, 0, 255).astype(np.uint8)
        if rgb:
            image = np.stack([255 - image, image // 2, image], axis=-1)
        imsave(folder / "images" / f"p{i}.png", image, check_contrast=False)
        tifffile.imwrite(folder / "labels" / f"p{i}.tif", truth.astype(np.uint16))
    (folder / "dataset.toml").write_text(f'name = "{folder.name}"\n{head}')
    return folder


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    labels = [draw_cells(seed) for seed in range(5)]
    return write_dataset(tmp_path / "cells", labels, 'kind = "instance"\n')


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    y, x = np.mgrid[:112, :112]
    net = ((y % 20) < 3) | ((x % 20) < 3)
    labels = []
    for i in range(4):
        truth = np.where(np.roll(net, 3 * i, axis=0), 2, 0)
        truth[(draw_cells(i, radius=5) > 0) & (truth == 0)] = 1
        labels.append(truth)
    head = 'kind = "semantic"\n[classes]\n0 = "rest"\n1 = "spot"\n2 = "membrane"\n'
    return write_dataset(tmp_path / "classes", labels, head, rgb=True)


def test_report_has_the_agreed_form(cells: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    report = one_shot.run(
        [cells],
        ["forest", "otsu"],
        BenchmarkSettings(prompts=2, max_queries=2),
        output=tmp_path / "q.json",
        on_progress=lambda done, total, message="": steps.append((done, total)),
    )
    records = report["records"]
    assert all(set(r) == FIELDS for r in records)
    assert len(records) == 2 * 2 * 2 == steps[-1][0] == steps[-1][1]
    assert {r["class"] for r in records} == {"objects"}
    for record in records:
        assert record["dice"] > 0.85 and record["f1"] > 0.7, record
        assert 0 <= record["ap"] <= record["f1"] <= 1
        assert record["seconds"] > 0
    stored = json.loads((tmp_path / "q.json").read_text())
    assert {k: v for k, v in stored.items() if k not in (SEAL, WRITTEN)} == report
    text = (tmp_path / "q.md").read_text()
    assert "| forest | 1 |" in text and "| cells / objects |" in text
    assert report["summary"]["otsu"]["dice_gain"] is not None


def test_all_models_see_the_same_and_never_the_prompt_itself(cells: Path) -> None:
    (task,) = one_shot.plan([cells], BenchmarkSettings(prompts=3, max_queries=12))
    assert len(task.draws) == 3 and len({d.image for d in task.draws}) == 3
    pairs = list(task.pairs())
    assert len(pairs) == 3 * 4
    assert all(task.draws[number].image != image for image, number in pairs)
    (again,) = one_shot.plan([cells], BenchmarkSettings(prompts=3, max_queries=12))
    (other,) = one_shot.plan(
        [cells], BenchmarkSettings(prompts=3, max_queries=12, seed=1)
    )
    assert task.draws == again.draws != other.draws
    for draw in task.draws:
        prompt = task.prompt(draw)
        assert 0.05 <= (prompt.mask > 0).mean() <= 0.9


def test_prompts_come_from_images_that_are_not_queries(cells: Path) -> None:
    (task,) = one_shot.plan([cells], BenchmarkSettings(prompts=2, max_queries=3))
    assert not {d.image for d in task.draws} & set(task.queries)


def test_classes_are_tasks_and_nets_have_no_objects(classes: Path) -> None:
    report = one_shot.run(
        [classes], ["otsu"], BenchmarkSettings(prompts=1, max_queries=2)
    )
    known = {t["class"]: t["objects_known"] for t in report["tasks"]}
    assert known == {"spot": True, "membrane": False}
    for record in report["records"]:
        assert (record["f1"] is None) == (record["class"] == "membrane")
    for wanted in (["spot"], ["1"], ["classes:spot"]):
        tasks = one_shot.plan([classes], BenchmarkSettings(classes=wanted))
        assert [t.name for t in tasks] == ["spot"]
    with pytest.raises(one_shot.BenchmarkError, match="nothing"):
        one_shot.plan([classes], BenchmarkSettings(classes=["nothing"]))


def test_mosaics_get_borders(tmp_path: Path) -> None:
    blocks = np.kron(np.arange(1, 50).reshape(7, 7), np.ones((16, 16), int))
    folder = write_dataset(tmp_path / "mosaic", [blocks] * 3, 'kind = "instance"\n')
    (task,) = one_shot.plan([folder])
    truth = task.truth("p0")
    assert task.mosaic and 0.5 < (truth > 0).mean() < 0.9
    assert len(np.unique(truth)) == 50


def test_stated_scale_sets_the_box(tmp_path: Path) -> None:
    labels = [draw_cells(seed, side=160) for seed in range(2)]
    folder = write_dataset(
        tmp_path / "large", labels, 'kind = "instance"\nscale = 0.5\n'
    )
    (task,) = one_shot.plan([folder])
    assert task.rule.size == 128 and task.scale == 0.5
    assert task.query("p0").scaled.shape == (80, 80, 1)


class Perfect:
    """Hands back the truth, and counts how often it was asked."""

    asked = 0

    def fit(self, prompt: Prompt) -> Answer:
        assert prompt.image.shape[:2] == (64, 64)
        return self.answer

    def answer(self, query: Query) -> np.ndarray:
        self.asked += 1
        if self.asked > self.limit:
            raise KeyboardInterrupt
        assert query.truth is not None
        return query.truth

    limit = 10**9


@pytest.fixture
def perfect(monkeypatch: pytest.MonkeyPatch) -> Perfect:
    baseline = Perfect()
    baseline.weights = "a"  # type: ignore[attr-defined]
    real = one_shot.make_contestant

    def make_contestant(name: str, settings: BenchmarkSettings) -> object:
        if name == "perfect":
            return baseline, baseline.weights  # type: ignore[attr-defined]
        return real(name, settings)

    monkeypatch.setattr(one_shot, "make_contestant", make_contestant)
    return baseline


def test_truth_scores_one(perfect: Perfect, cells: Path, classes: Path) -> None:
    report = one_shot.run(
        [cells, classes], ["perfect"], BenchmarkSettings(prompts=1, max_queries=2)
    )
    assert all(r["dice"] == r["iou"] == 1 for r in report["records"])
    assert all(r["f1"] in (1, None) for r in report["records"])


def test_ignored_pixels_do_not_count(perfect: Perfect, cells: Path) -> None:
    (cells / "ignore").mkdir()
    for i in range(5):
        hidden = np.zeros((112, 112), np.uint8)
        hidden[:, :40] = 1
        tifffile.imwrite(cells / "ignore" / f"p{i}.tif", hidden)

    def half(query: Query) -> np.ndarray:
        assert query.truth is not None
        labels = query.truth.copy()
        labels[:, :40] = 0
        return labels

    perfect.answer = half  # type: ignore[method-assign]
    report = one_shot.run(
        [cells], ["perfect"], BenchmarkSettings(prompts=1, max_queries=2)
    )
    assert [r["dice"] for r in report["records"]] == [1.0, 1.0]
    assert all(d["x"] >= 40 for d in report["tasks"][0]["draws"])
    for i in range(5):
        (cells / "ignore" / f"p{i}.tif").unlink()
    report = one_shot.run(
        [cells], ["perfect"], BenchmarkSettings(prompts=1, max_queries=2)
    )
    assert max(r["dice"] for r in report["records"]) < 0.95


def test_stopped_run_goes_on(perfect: Perfect, cells: Path, tmp_path: Path) -> None:
    settings = BenchmarkSettings(prompts=2, max_queries=3)
    output = tmp_path / "q.json"

    def run(settings: BenchmarkSettings = settings, resume: bool = True) -> dict:
        return one_shot.run(
            [cells], ["perfect"], settings, output=output, resume=resume
        )

    whole = run(resume=False)
    n = perfect.asked
    perfect.asked, perfect.limit = 0, 2
    with pytest.raises(KeyboardInterrupt):
        run(resume=False)
    journal = tmp_path / "q.jsonl"
    with journal.open("a") as file:
        file.write('{"dataset": "cel')  # the machine went down while writing
    perfect.asked, perfect.limit = 0, 10**9
    resumed = run()
    assert perfect.asked == n - 2
    scores = [[r[k] for k in ("draw", "query", "dice", "f1")] for r in whole["records"]]
    assert scores == [
        [r[k] for k in ("draw", "query", "dice", "f1")] for r in resumed["records"]
    ]
    perfect.asked = 0
    run()
    assert perfect.asked == 0
    perfect.weights = "b"  # type: ignore[attr-defined]
    run()
    assert perfect.asked == n
    with pytest.raises(one_shot.BenchmarkError, match=re.escape(str(journal))):
        run(dataclasses.replace(settings, prompts=1))
    labels = next((cells / "labels").iterdir())
    labels.write_bytes(labels.read_bytes() + b"changed")
    with pytest.raises(one_shot.BenchmarkError, match=re.escape(str(journal))):
        run()


def test_upper_bound_of_the_forest_is_one(cells: Path) -> None:
    report = one_shot.run(
        [cells], ["forest", "forest-best"], BenchmarkSettings(prompts=1, max_queries=3)
    )
    summary = report["summary"]
    assert summary["forest-best"]["f1"] >= summary["forest"]["f1"]
    assert summary["forest-best"]["seconds"] is None


def test_unet_trained_on_the_prompt(cells: Path) -> None:
    from napari_svpseg.benchmark.baselines import PromptUNetBaseline

    (task,) = one_shot.plan([cells], BenchmarkSettings(prompts=1, max_queries=1))
    prompt, query = task.prompt(task.draws[0]), task.query(task.queries[0])
    labels = PromptUNetBaseline(steps=30, batch=4, width=8).fit(prompt)(query)
    again = PromptUNetBaseline(steps=30, batch=4, width=8).fit(prompt)(query)
    assert np.array_equal(labels, again)
    assert query.truth is not None
    found, truth = labels > 0, query.truth > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.8


def test_unet_trained_on_the_other_images(cells: Path) -> None:
    from napari_svpseg.benchmark.baselines import FullUNetBaseline

    (task,) = one_shot.plan([cells], BenchmarkSettings(prompts=1, max_queries=1))
    prompt, query = task.prompt(task.draws[0]), task.query(task.queries[0])
    seen: list[str] = []

    def read_query(name: str) -> Query:
        seen.append(name)
        return task.query(name)

    baseline = FullUNetBaseline(steps=80, batch=4, width=8)
    labels = baseline.for_images(task.dataset.ids, read_query).fit(prompt)(query)
    assert seen and query.name not in seen
    assert query.truth is not None
    found, truth = labels > 0, query.truth > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.8
    with pytest.raises(ValueError, match=NEEDS_IMAGES):
        baseline.fit(prompt)


def test_our_models_take_part(cells: Path) -> None:
    from napari_svpseg.models.registry import ModelConfig, build

    baseline = one_shot.ModelContestant(
        build(ModelConfig("panet", {"width": 8})), "cpu"
    )
    (task,) = one_shot.plan([cells], BenchmarkSettings(prompts=1, max_queries=1))
    query = task.query(task.queries[0])
    labels = baseline.fit(task.prompt(task.draws[0]))(query)
    assert labels.shape == query.shape and labels.dtype == np.uint32
    report = one_shot.run(
        [cells], {"mine": baseline}, BenchmarkSettings(prompts=1, max_queries=1)
    )
    assert [r["model"] for r in report["records"]] == ["mine"]


def test_contact_sheet(cells: Path, tmp_path: Path) -> None:
    path = one_shot.contact_sheet(
        [cells],
        ["otsu"],
        tmp_path / "sheet.png",
        BenchmarkSettings(prompts=1, max_queries=2),
        side=100,
    )
    page = imread(path)
    assert page.shape[1] >= 4 * 100
    assert (page[..., :3] == (255, 176, 0)).all(-1).any()  # what was found
    assert (page[..., :3] == (0, 180, 255)).all(-1).any()  # the truth


def test_contact_sheet_of_worst_middle_and_best(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows stand in the order of the Dice, and of many some of each kind are shown."""
    scores = iter([0.5, 0.9, 0.1, 0.7, 0.3, 0.8, 0.2])
    square = [np.zeros((8, 8, 3), np.uint8)] * 4
    monkeypatch.setattr(one_shot, "_squares", lambda *_: (next(scores), square))
    plan = one_shot.plan
    monkeypatch.setattr(one_shot, "plan", lambda *a: [*plan(*a)] * 7)
    shown: list[str] = []
    sheet = one_shot.sheet

    def spy(rows, titles):
        shown.extend(title.split()[-1] for title, _ in rows)
        return sheet(rows, titles)

    monkeypatch.setattr(one_shot, "sheet", spy)
    one_shot.contact_sheet([cells], ["otsu"], tmp_path / "a.png", side=8, pick=2)
    assert shown == ["0.10", "0.20", "0.30", "0.50", "0.80", "0.90"]


def test_no_models_and_no_data(cells: Path) -> None:
    with pytest.raises(one_shot.BenchmarkError, match=NO_MODEL):
        one_shot.run([cells], [])
    with pytest.raises(one_shot.BenchmarkError, match=NO_TASK):
        one_shot.plan([])


def test_a_sheet_shows_a_draw_with_another_image(cells: Path, monkeypatch) -> None:
    (task,) = one_shot.plan([cells], BenchmarkSettings(prompts=2, max_queries=2))
    alone = dataclasses.replace(
        task, draws=task.draws[:2], queries=(task.draws[0].image,)
    )
    assert {number for _, number in alone.pairs()} == {1}
    _, squares = one_shot._squares(alone, {"otsu": one_shot.OtsuBaseline()}, 64)
    assert [s.shape for s in squares] == [(64, 64, 3)] * 4
