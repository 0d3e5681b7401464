"""`train_from_tags` and `svpseg train-tags`: from tags to a model used like others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage.io import imread, imsave

from napari_svpseg import api
from napari_svpseg.cli.main import main
from napari_svpseg.core.annotation.image_tags import (
    BankPatch,
    TagTrainingError,
    TagTrainingPreview,
    TagTrainingProgress,
    TagTrainingSettings,
    checked_classes,
)
from napari_svpseg.core.geometry import MIN_BOX_SIZE
from napari_svpseg.core.progress import Cancelled
from napari_svpseg.core.prompt import PromptError
from napari_svpseg.core.settings import PostprocessSettings, SegmentSettings
from napari_svpseg.engine.tag_training.patch_bank import NEVER_ALONE
from napari_svpseg.io.model_archive import import_model
from napari_svpseg.io.model_store import load_model, read_card
from napari_svpseg.io.prompt_files import load_prompts
from napari_svpseg.io.tag_files import Tags, TagsError, read_tags
from napari_svpseg.workflows.tag_training import (
    NO_IMAGE,
    OTHER_ENCODER,
    training_folder,
)
from napari_svpseg.workflows.tagged_images import (
    EVERYWHERE,
    NO_CLASS,
    ONE_EVERYWHERE,
    ONE_IMAGE,
    OTHER_NUMBER,
    RARE,
    STACK,
    TOO_SMALL,
    UNUSED_CLASS,
    TaggedImages,
)

QUICK = {"epochs": 1, "second_epochs": 1, "batch": 4, "n_prototypes": 2}


def fit(images, tags, output, start, **changed):
    keys = ("bank", "resume", "on_progress", "on_partial")
    others = {k: changed.pop(k) for k in keys if k in changed}
    return api.train_from_tags(
        images,
        tags,
        settings=TagTrainingSettings(**QUICK | changed),
        output=output,
        device="cpu",
        start_from=start,
        **others,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_svp) -> Path:
    """A model of two classes, hardly trained."""
    rng = np.random.default_rng(0)
    images = {str(i): rng.random((40, 44)) for i in range(4)}
    tags = {"0": ["disc"], "1": ["square"], "2": [], "3": ["disc", "square"]}
    folder = tmp_path_factory.mktemp("weak") / "tags-model"
    fit(images, tags, folder, tiny_svp)
    return folder


# -------------------------------------------------------------------------- training


@pytest.mark.parametrize(
    ("variant", "second", "method"),
    [
        ("published", True, "semantic"),
        ("published", False, "pbip"),
        ("seed", False, "pbip-seed"),
    ],
)
def test_tags_become_a_model_folder(
    tagged_discs, tiny_svp, tmp_path, variant, second, method
):
    seen = []
    result = fit(
        tagged_discs,
        tagged_discs / "tags.csv",
        tmp_path / "m",
        tiny_svp,
        variant=variant,
        second_stage=second,
        on_partial=seen.append,
    )
    card = read_card(result.model)
    assert (card.method, list(card.classes)) == (method, ["disc", "square"])
    assert card.training["images_of"] == {"disc": 4, "square": 4}
    assert BankPatch.from_dict(card.training["bank"][0]) == result.bank[0]
    assert (tmp_path / "m" / "history.csv").read_text().startswith("step,seconds,total")
    assert not training_folder(tmp_path / "m").exists()
    prompts = load_prompts(tmp_path / "m" / "prompts.svprompt")
    assert [p.name for p in prompts] == [p.title for p in result.bank]
    assert [p.source for p in prompts] == [p.image for p in result.bank]
    assert not any(p.is_negative for p in prompts)
    stages = list(
        dict.fromkeys(s.stage for s in seen if isinstance(s, TagTrainingProgress))
    )
    expected = ["reading", "bank", "first stage", "pseudo masks", "second stage"]
    assert stages == [*(expected if second else expected[:3]), "saving"]
    assert list(result.bank) in [s for s in seen if isinstance(s, list)]
    preview = next(s for s in seen if isinstance(s, TagTrainingPreview))
    assert preview.classes.shape == (48, 48) and preview.foreground.dtype == np.uint8


def test_it_runs_as_a_job_and_is_cancelled_as_one(
    tagged_discs, tiny_svp, tmp_path, in_process
):
    arguments = {
        "settings": TagTrainingSettings(**QUICK),
        "start_from": str(tiny_svp),
        "device": "cpu",
    }
    job = in_process.submit(
        api.train_from_tags,
        str(tagged_discs),
        read_tags(tagged_discs / "tags.csv"),
        output=str(tmp_path / "m"),
        **arguments,
    )
    assert Path(job.result(120).model).is_dir()
    job = in_process.submit(
        api.train_from_tags,
        str(tagged_discs),
        read_tags(tagged_discs / "tags.csv"),
        output=str(tmp_path / "n"),
        on_event=lambda event: job.cancel() if event.done > 2000 else None,
        **arguments,
    )
    with pytest.raises(Cancelled):
        job.result(120)
    assert not (tmp_path / "n").exists()


def test_stopping_keeps_a_model_and_resuming_goes_on(tagged_discs, tiny_svp, tmp_path):
    tags, target = tagged_discs / "tags.csv", tmp_path / "m"

    def stop(value):
        if isinstance(value, TagTrainingProgress) and value.stage == "first stage":
            api.stop_tag_training(target)

    result = fit(tagged_discs, tags, target, tiny_svp, epochs=3, on_partial=stop)
    assert "stopped in the first stage" in result.notes[-1]
    assert load_model(target).card.method == "pbip"
    steps = []
    fit(
        tagged_discs,
        tags,
        target,
        tiny_svp,
        epochs=3,
        resume=True,
        on_partial=lambda v: (
            steps.append((v.stage, v.step))
            if isinstance(v, TagTrainingProgress)
            else None
        ),
    )
    assert next(n for stage, n in steps if stage == "first stage") == 2
    assert load_model(target).card.method == "semantic"


def test_time_that_is_given_is_kept(tagged_discs, tiny_svp, tmp_path, step_clock):
    result = fit(
        tagged_discs,
        tagged_discs / "tags.csv",
        tmp_path / "m",
        tiny_svp,
        epochs=1000,
        second_epochs=1000,
        minutes=0.2,
    )
    assert result.seconds < 13 and load_model(tmp_path / "m").card.method == "semantic"


def test_an_edited_bank_is_the_bank(tagged_discs, tiny_svp, tmp_path):
    tags = tagged_discs / "tags.csv"
    settings = TagTrainingSettings(**QUICK)
    found = api.find_patch_bank(
        tagged_discs, tags, settings=settings, start_from=tiny_svp, device="cpu"
    )
    from dataclasses import replace

    edited = [
        replace(found[0], removed=True),
        replace(found[1], name="my disc"),
        *found[2:],
    ]
    result = fit(tagged_discs, tags, tmp_path / "m", tiny_svp, bank=edited)
    assert result.bank == tuple(edited)
    names = [p.name for p in load_prompts(tmp_path / "m" / "prompts.svprompt")]
    assert names == ["my disc", *(p.title for p in found[2:])]


def test_the_same_seed_gives_the_same_model(tagged_discs, tiny_svp, tmp_path):
    hashes = {
        read_card(
            fit(tagged_discs, tagged_discs / "tags.csv", tmp_path / n, tiny_svp).model
        ).sha256
        for n in ("a", "b")
    }
    assert len(hashes) == 1


def test_windows_are_measured_by_all_of_them(tiny_svp, tmp_path):
    """A window of empty ground is not stretched until it looks like the others."""
    rng = np.random.default_rng(0)
    ground = [rng.normal(50, 2, (32, 32)) for _ in range(3)]
    cells = [g + 100 * (np.indices(g.shape)[0] > 20) for g in ground]
    images = {str(i): im for i, im in enumerate(ground + cells)}
    given = TaggedImages.of(images, {key: ["x"] for key in images})
    assert np.ptp(given.plane("0")[1]) < 15
    given = TaggedImages.of(images, {key: ["x"] for key in images})
    assert given.share_intensities(31) is None and np.ptp(given.plane("0")[1]) < 15
    shared = given.share_intensities(32)
    assert np.ptp(shared["range"]) > 90
    assert np.array_equal(given.plane("0")[1], shared["range"])
    tags = {"0": [], "1": [], "2": [], "3": ["x"], "4": ["x"], "5": ["x"]}
    result = fit(images, tags, tmp_path / "m", tiny_svp, second_stage=False)
    card = read_card(result.model)
    assert card.training["intensities"] == {**shared, "largest": 224}

    def measured(image):
        found = api.segment(image, model=result.model, device="cpu")
        return np.array(found.recipe.intensities)

    assert np.allclose(measured(images["0"]), shared["range"])
    whole = np.tile(images["0"], (8, 8))
    for other in (whole, images["0"].astype(np.float32)):
        assert np.ptp(measured(other)) < 15
    kept = fit(
        images, tags, tmp_path / "n", tiny_svp, second_stage=False, intensities="image"
    )
    assert read_card(kept.model).training["intensities"] is None
    images["5"] = np.stack([images["5"]] * 3, axis=-1)
    told = fit(
        images, tags, tmp_path / "o", tiny_svp, second_stage=False, intensities="set"
    )
    assert "several kinds" in " ".join(told.notes)


# ------------------------------------------------------------------------- bad input


def gray(n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.random((32, 32)) for _ in range(n)]


@pytest.mark.parametrize(
    ("n", "tags", "changed", "told"),
    [
        (2, [[], []], {}, NO_CLASS),
        (1, [["x"]], {}, ONE_IMAGE),
        (3, [["x"]] * 3, {}, EVERYWHERE),
        (3, [["x"], [], []], {"classes": ("x", "y")}, UNUSED_CLASS),
        (3, [["x"], []], {}, OTHER_NUMBER),
    ],
)
def test_tags_that_teach_nothing_are_refused(
    tiny_svp, tmp_path, pattern, n, tags, changed, told
):
    with pytest.raises(TagTrainingError, match=pattern(told)) as error:
        fit(gray(n), tags, tmp_path / "m", tiny_svp, **changed)
    assert "\n" not in str(error.value) and not (tmp_path / "m").exists()


def test_images_that_cannot_be_used_are_left_out_and_named(
    tagged_discs, tiny_svp, tmp_path
):
    (tagged_discs / "00.png").write_bytes(b"no picture")
    tifffile.imwrite(
        tagged_discs / "stack.tif",
        np.zeros((3, 32, 32), np.uint8),
        imagej=True,
        metadata={"axes": "ZYX"},
    )
    imsave(tagged_discs / "tiny.png", np.zeros((4, 4), np.uint8), check_contrast=False)
    with (tagged_discs / "tags.csv").open("a") as file:
        file.write("\nstack.tif,disc\ntiny.png,disc\ngone.png,disc\n")
    result = fit(tagged_discs, tagged_discs / "tags.csv", tmp_path / "m", tiny_svp)
    for told in (
        "00.png",
        STACK.format(path=tagged_discs / "stack.tif", axes="ZYX"),
        TOO_SMALL.format(name="tiny.png", height=4, width=4, side=MIN_BOX_SIZE),
        "gone.png",
    ):
        assert any(told in note for note in result.notes), (told, result.notes)


def test_no_usable_image_is_an_error(tiny_svp, tmp_path, pattern):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(TagTrainingError, match=pattern(NO_IMAGE) + "$"):
        fit(tmp_path, Tags({"a.png": ["x"], "b.png": []}), tmp_path / "m", tiny_svp)
    with pytest.raises(TagsError, match=str(tmp_path)):
        fit(tmp_path, Tags({"c.png": ["x"]}), tmp_path / "m", tiny_svp)


def test_classes_everywhere_rare_or_never_alone_are_told(tiny_svp, tmp_path):
    tags = [["x", "y"], ["x"], ["x"], ["x", "y"]]
    notes = fit(gray(4), tags, tmp_path / "m", tiny_svp).notes
    assert {ONE_EVERYWHERE.format(name="x"), RARE.format(name="y")} <= {*notes}
    assert NEVER_ALONE.format("y") in notes


def test_a_start_with_another_encoder_is_refused(tiny_model, tmp_path, pattern):
    with pytest.raises(TagTrainingError, match=pattern(OTHER_ENCODER)):
        fit(gray(2), [["x"], []], tmp_path / "m", tiny_model)


def test_a_folder_of_other_things_is_not_overwritten(tiny_svp, tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(OSError, match=r"thesis\.txt"):
        fit(gray(2), [["x"], []], tmp_path, tiny_svp)


@pytest.mark.parametrize(
    "bad",
    [
        {"variant": "other"},
        {"minutes": 0},
        {"minutes": "long"},
        {"classes": ()},
        {"classes": ("a", "a")},
        {"classes": "ab"},
        {"epochs": 0},
        {"window": 7},
    ],
)
def test_odd_settings_are_refused(bad):
    with pytest.raises(ValueError):
        TagTrainingSettings(**bad)


def test_class_names_are_checked():
    assert checked_classes(["a", "b c"]) == ("a", "b c")
    with pytest.raises(ValueError, match="'a'"):
        checked_classes(["a", "a"])


# ------------------------------------------------------------------- using the model


def test_the_model_needs_no_prompt_and_tells_classes(model):
    image = np.random.default_rng(3).random((50, 61))
    result = api.segment(image, None, model=str(model), device="cpu", threshold=0.05)
    assert result.recipe.postprocess["labels"] == "classes"
    assert set(np.unique(result.labels)) <= {0, 1, 2} and result.labels.any()
    assert list(result.classes) == ["disc", "square"]
    assert set(result.object_classes.values()) <= {"disc", "square"}
    assert np.isnan(result.trust) and result.recipe.scale == 1.0


def test_objects_are_of_one_class_each(model):
    image = np.random.default_rng(3).random((64, 64))
    result = api.segment(
        image,
        model=str(model),
        device="cpu",
        postprocess=PostprocessSettings(
            labels="objects", threshold=0.05, min_area=1, fill_holes=False
        ),
    )
    ids = np.unique(result.labels[result.labels > 0])
    assert ids.tolist() == list(range(1, len(ids) + 1))
    for i in ids:
        assert len(np.unique(result.maps.classes[result.labels == i])) == 1
    assert set(result.object_classes) == set(ids.tolist())
    again = api.postprocess(
        result.maps,
        PostprocessSettings(
            labels="objects", threshold=0.05, min_area=1, fill_holes=False
        ),
    )
    assert np.array_equal(again, result.labels)


def test_stacks_keep_classes_plane_by_plane(model):
    stack = np.random.default_rng(3).random((2, 32, 40))
    result = api.segment(stack, model=str(model), device="cpu", axes="ZYX")
    assert result.maps.classes.shape == (2, 32, 40)
    assert result.maps.classes.dtype == np.uint8
    one = api.segment(
        stack[1],
        model=str(model),
        device="cpu",
        intensities=np.array(result.recipe.intensities),
    )
    assert np.array_equal(one.labels, result.labels[1])


def test_tiles_leave_no_seams_in_classes(model):
    image = np.random.default_rng(3).random((300, 280))

    def found(tile):
        settings = SegmentSettings(tile=tile, overlap=128)
        return api.segment(image, model=str(model), device="cpu", settings=settings)

    whole, tiled = found(1024), found(256)
    assert (whole.maps.classes == tiled.maps.classes).mean() > 0.99


def test_the_recipe_repeats_the_run(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    imsave("query.png", (255 * rng.random((40, 40))).astype(np.uint8))
    result = api.segment(imread("query.png"), model=str(model), device="cpu")
    code = result.recipe.to_python().replace("query.tif", "query.png")
    names: dict = {}
    exec(compile(code, "recipe", "exec"), names)
    assert np.array_equal(names["result"].labels, result.labels)
    words = result.recipe.to_command().replace("query.tif", "query.png").split()
    assert "--prompts" not in words and main(words[1:]) == 0
    written = tifffile.imread("out/query_labels.ome.tif")
    assert np.array_equal(written, result.labels)


def test_other_models_still_need_a_prompt(tiny_model):
    with pytest.raises(ValueError, match="prompt"):
        api.segment(np.zeros((32, 32)), None, model=str(tiny_model), device="cpu")
    from napari_svpseg.engine.inference.predict import predict

    network = load_model(tiny_model).network
    with pytest.raises(PromptError, match="needs a prompt"):
        predict(np.zeros((32, 32, 1)), None, network, "cpu")


def test_the_model_can_be_given_away(model, tmp_path):
    card = import_model(model, folder=tmp_path / "models")
    assert card.classes == read_card(model).classes
    assert (Path(card.path) / "prompts.svprompt").is_file()
    text = (Path(card.path) / "README.md").read_text()
    assert "finds: disc, square" in text


def test_a_card_with_odd_classes_is_refused(model, tmp_path):
    card = import_model(model, folder=tmp_path / "models")
    path = Path(card.path) / "model.json"
    values = json.loads(path.read_text())
    for bad in (["disc"], {"disc": 3}):
        path.write_text(json.dumps(values | {"classes": bad}))
        with pytest.raises(ValueError, match="'classes' is missing or wrong"):
            read_card(card.path)


# ---------------------------------------------------------------------- command line


def svpseg(*words: object) -> int:
    return main([str(w) for w in words])


def test_one_command_trains_and_the_benchmark_scores_it(
    tagged_discs, tiny_svp, tmp_path, capsys
):
    out = tmp_path / "model"
    assert (
        svpseg(
            "train-tags",
            tagged_discs,
            "--tags",
            tagged_discs / "tags.csv",
            "-o",
            out,
            "--start-from",
            tiny_svp,
            "--epochs",
            1,
            "--second-epochs",
            1,
            "--batch",
            4,
            "--device",
            "cpu",
        )
        == 0
    )
    assert f"{out}: disc, square; a bank of" in capsys.readouterr().out
    data = tmp_path / "data"
    for part in ("images", "labels"):
        (data / part).mkdir(parents=True)
    y, x = np.mgrid[:96, :96]
    labels = ((y - 40) ** 2 + (x - 40) ** 2 <= 144).astype(np.uint16)
    for name in ("a", "b"):
        imsave(
            data / "images" / f"{name}.png",
            (110 + 90 * labels).astype(np.uint8),
            check_contrast=False,
        )
        tifffile.imwrite(data / "labels" / f"{name}.tif", labels)
    (data / "dataset.toml").write_text(
        'name = "d"\nkind = "semantic"\n[classes]\n1 = "Disc"\n'
    )
    report = tmp_path / "report.json"
    assert (
        svpseg(
            "benchmark",
            data,
            "--models",
            f"{out},otsu",
            "--prompts",
            1,
            "--device",
            "cpu",
            "--json",
            report,
        )
        == 0
    )
    records = json.loads(report.read_text())["records"]
    assert {r["model"] for r in records} == {str(out), "otsu"}
    assert (
        svpseg(
            "segment",
            data / "images",
            "--model",
            out,
            "-o",
            tmp_path / "o",
            "--device",
            "cpu",
        )
        == 0
    )
    assert set(np.unique(tifffile.imread(tmp_path / "o" / "a_labels.ome.tif"))) <= {
        0,
        1,
        2,
    }


def test_classes_that_the_model_does_not_know_are_not_scored(model, tmp_path, caplog):
    from napari_svpseg.benchmark.one_shot import ModelContestant
    from napari_svpseg.benchmark.one_shot_tasks import Task

    known = ModelContestant(load_model(model).network, "cpu", ("disc", "square"))
    task = Task(None, "Square", 5, None, True, False)
    assert known.knows(task) and known.for_task(task).class_id == 2
    assert not known.knows(Task(None, "membrane", 2, None, True, False))
    numbered = ModelContestant(known.network, "cpu", ("1", "2"))
    assert numbered.for_task(Task(None, "membrane", 2, None, True, False)).class_id == 2


def test_folder_names_train_too(tagged_discs, tiny_svp, tmp_path):
    for row in (tagged_discs / "tags.csv").read_text().splitlines():
        name, kind = row.split(",")
        place = tmp_path / "sorted" / (kind or "none")
        place.mkdir(parents=True, exist_ok=True)
        (tagged_discs / name).rename(place / name)
    assert (
        svpseg(
            "train-tags",
            tmp_path / "sorted",
            "-o",
            tmp_path / "m",
            "--start-from",
            tiny_svp,
            "--epochs",
            1,
            "--no-second-stage",
            "--batch",
            4,
            "--device",
            "cpu",
        )
        == 0
    )
    assert list(read_card(tmp_path / "m").classes) == ["disc", "square"]


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("--minutes", "0"), 2, "minutes"),
        (("--variant", "x"), 2, "'x'"),
        (("--tags", "none.csv"), 1, "none.csv"),
        ((), 1, "{folder}: "),
    ],
)
def test_wrong_usage_is_one_line(tagged_discs, tmp_path, capsys, words, status, told):
    assert svpseg("train-tags", tagged_discs, "-o", tmp_path / "m", *words) == status
    error = capsys.readouterr().err
    assert told.format(folder=tagged_discs) in error and error.count("\n") == 1
