"""The commands as a user types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import typer

from napari_svpseg import api
from napari_svpseg.cli.console import failures
from napari_svpseg.cli.finetune import _pair
from napari_svpseg.cli.main import DEBUG, main
from napari_svpseg.cli.options import TWO_NUMBERS
from napari_svpseg.cli.prompts import EACH_PROMPT, WHAT_TO_FIND
from napari_svpseg.cli.segment import DONE_BEFORE, JOB_ALONE
from napari_svpseg.core.image import ImageError
from napari_svpseg.core.jobs.folder_job import FileOutcome
from napari_svpseg.core.labels.metrics import dice
from napari_svpseg.core.model_card import ModelCard
from napari_svpseg.core.result import Recipe
from napari_svpseg.core.settings import (
    DEVICE_NAMES,
    PostprocessSettings,
    SegmentSettings,
)
from napari_svpseg.io.channel_choice import NO_NAMES
from napari_svpseg.io.folder_records import RUN_FILES
from napari_svpseg.io.model_store import ModelFormatError, save_model
from napari_svpseg.io.prompt_files import (
    NOT_ONE_PLANE,
    load_prompts,
    prompt_from_files,
)
from napari_svpseg.io.sample_images import tissue
from napari_svpseg.models.registry import ModelConfig, build
from napari_svpseg.workflows import folder_run


def discs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.zeros((96, 100), np.uint16)
    yy, xx = np.mgrid[:96, :100]
    for i, (y, x) in enumerate([(20, 20), (30, 60), (60, 30), (70, 75)], 1):
        dy, dx = rng.integers(-4, 4, 2)
        labels[(yy - y - dy) ** 2 + (xx - x - dx) ** 2 <= 64] = i
    image = 40 + 150 * (labels > 0) + rng.normal(0, 5, labels.shape)
    return image.astype(np.uint8), labels


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with five images, their labels, and a tiny untrained model."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    for i in range(5):
        image, labels = discs(i)
        tifffile.imwrite(folder / "images" / f"{i}.tif", image)
        tifffile.imwrite(folder / "labels" / f"{i}.tif", labels)
    config = ModelConfig("panet", {"width": 8})
    card = ModelCard("tiny", config.method, config.arguments, licence="CC0-1.0")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)  # what an untrained model finds must not vary
        network = build(config)
    save_model(folder / "tiny", network, card)
    return folder


@pytest.fixture
def here(place: Path, monkeypatch) -> Path:
    monkeypatch.chdir(place)
    monkeypatch.setenv("NAPARI_SVPSEG_HOME", str(place / "home"))
    monkeypatch.delenv(DEBUG, raising=False)
    return place


METHODS = {"svp", "svp-concat", "svp-attention", "panet", "alpnet", "dspnet"}


def svpseg(*words: object) -> int:
    return main([str(w) for w in words])


PROMPT = (
    "--prompt-image",
    "images/0.tif",
    "--prompt-labels",
    "labels/0.tif",
    "--box",
    "8",
    "8",
)
TINY = ("--model", "tiny", "--device", "cpu", "--no-trust")


def names(folder: Path) -> list[str]:
    """Return what a run wrote besides its own records."""
    return sorted(p.name for p in folder.iterdir() if p.name not in RUN_FILES)


def test_a_folder_is_segmented_and_each_file_tells_how(
    here, tmp_path, capsys, read_recipe
) -> None:
    assert (
        svpseg("segment", "images", *PROMPT, "-o", tmp_path, *TINY, "--min-area", 7)
        == 0
    )
    assert names(tmp_path) == [f"{i}_labels.ome.tif" for i in range(5)]
    labels = tifffile.imread(tmp_path / "3_labels.ome.tif")
    assert labels.shape == (96, 100)
    recipe = read_recipe(tmp_path / "3_labels.ome.tif")
    assert recipe is not None
    assert recipe.postprocess["min_area"] == 7
    assert recipe.segment["trust"] is False
    assert recipe.query_file == str(Path("images/3.tif"))
    assert "[5/5]" in capsys.readouterr().out


def test_one_bad_file_is_named_and_the_rest_is_done(here, tmp_path, capsys) -> None:
    bad = tmp_path / "bad.tif"
    bad.write_bytes(Path("images/1.tif").read_bytes()[:300])
    out = tmp_path / "out"
    assert (
        svpseg(
            "segment",
            "images/1.tif",
            bad,
            "gone.png",
            "images/2.tif",
            *PROMPT,
            "-o",
            out,
            *TINY,
        )
        == 1
    )
    assert names(out) == ["1_labels.ome.tif", "2_labels.ome.tif"]
    errors = capsys.readouterr().err.splitlines()
    assert [e for e in errors if "bad.tif" in e]
    assert [e for e in errors if "gone.png: no such file" in e]
    assert errors[-1] == f"svpseg: {failures(2, 4)}"
    assert len(errors) == 3


BOX = (*PROMPT, "-o", "out")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("segment", "images"), "--output"),
        (("segment", "-o", "out"), "IMAGES"),
        (("segment", "images", "-o", "out"), WHAT_TO_FIND),
        (("segment", "images", *BOX, "--prompts", "p.svprompt"), WHAT_TO_FIND),
        (("segment", "images", "-o", "out", *PROMPT[:2]), EACH_PROMPT),
        (("segment", "images", "-o", "out", *PROMPT[:4], "--box", "8", "x"), "x"),
        (
            ("segment", "images", *PROMPT[:4], "--box", "8", "-o", "out"),
            f"{TWO_NUMBERS}, got '8'",
        ),
        (("segment", "images", *BOX, "--device", "gpu"), f"{DEVICE_NAMES}, got 'gpu'"),
        (("segment", "images", *BOX, "--threshold", "2"), "0.05 to 0.95, got 2.0"),
        (("segment", "images", *BOX, "--as", "boxes"), "objects, classes, got 'boxes'"),
        (("segment", "labels/0.tif", "images/0.tif", *BOX), "0_labels"),
        (("segment", "home", *BOX), "home"),
        (("segment", "images", *BOX, "--job", "run.json"), JOB_ALONE),
        (("segment", "images", *BOX, "--model", "no"), "'no'"),
        (("finetune", "a.tif=b.tif", "-o", "out", "--device", "gpu"), DEVICE_NAMES),
        (("finetune", "a.tif=b.tif"), "--output"),
        (("finetune", "a.tif", "-o", "out"), "'a.tif'"),
        (("train",), "--self-supervised"),
        (("segmnt",), "segmnt"),
        (("models", "show"), "'model'"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(here, capsys, words, text) -> None:
    (here / "home").mkdir(exist_ok=True)
    assert svpseg(*words) == 2
    err = capsys.readouterr().err
    assert text in err
    assert len(err.splitlines()) == 1
    assert not (here / "out").exists()


def test_channel_names_that_a_file_lacks_are_one_line(here, capsys) -> None:
    assert svpseg("segment", "images", *BOX, "--channels", "red") == 1
    err = capsys.readouterr().err
    assert NO_NAMES.format(path="images/0.tif") in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("segment", "images", "-o", "out", "--prompts", "p.svprompt"), "p.svprompt"),
        (
            ("segment", "images", "-o", "out", *PROMPT[:4], "--box", "90", "8"),
            "images/0.tif with labels/0.tif: The box at y=90, x=8",
        ),
        (("models", "show", "nobody"), "'nobody'"),
        (("models", "import", "images/0.tif"), "images/0.tif"),
        (("train", "gone.toml"), "gone.toml"),
        (("benchmark", "gone", "--models", "forest"), "gone"),
        (("prompts", "show", "images/0.tif"), "images/0.tif"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_1(
    here, capsys, words, text
) -> None:
    assert svpseg(*words) == 1
    err = capsys.readouterr().err
    assert text in err.replace("\\", "/")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("n", [1, 2])
def test_images_that_are_not_there_are_counted_in_words(here, capsys, n) -> None:
    gone = [f"gone{i}.tif" for i in range(n)]
    assert svpseg("segment", *gone, *PROMPT, "-o", here / "none", *TINY) == 1
    *each, last = capsys.readouterr().err.splitlines()
    assert [name in line for name, line in zip(gone, each, strict=True)] == [True] * n
    assert last == f"svpseg: {failures(n, n)}"


NO_TORCH_NEEDED = [
    (("--help",), 0),
    (("segment", "--help"), 0),
    (("finetune", "--help"), 0),
    (("train-tags", "--help"), 0),
    (("train", "--help"), 0),
    (("benchmark", "--help"), 0),
    (("demo", "--help"), 0),
    (("models", "list"), 0),
    (("models", "show", "svp"), 0),
    (("segment", "missing.tif", *PROMPT, "-o", "none"), 1),
    (("segment", "missing.tif", "--prompts", "missing.svprompt", "-o", "none"), 1),
    (("segment", "images", *PROMPT, "-o", "none", "--model", "nobody"), 2),
    (("segment", "images", *PROMPT, "-o", "none", "--device", "gpu"), 2),
    (("segment", "images", *PROMPT, "-o", "none", "--threshold", "7"), 2),
    (("finetune", "missing.tif=missing.tif", "-o", "none"), 1),
    (("finetune", "images/0.tif=labels/0.tif", "-o", "none", "--steps", "x"), 2),
    (("train-tags", "missing", "-o", "none"), 1),
    (("train-tags", "images", "-o", "none", "--device", "gpu"), 2),
    (("train", "missing.toml"), 1),
    (("train", "--self-supervised", "missing", "-o", "none"), 1),
    (("benchmark", "missing"), 1),
    (("benchmark-windows", "missing", "-o", "none"), 1),
    (("demo", "--device", "gpu"), 2),
]


def test_torch_is_loaded_only_for_work_that_can_be_done(here) -> None:
    words = ["segment", "images/0.tif", *PROMPT, *TINY]
    code = (
        "import sys\nfrom napari_svpseg.cli.main import main\n"
        f"for words, status in {NO_TORCH_NEEDED!r}:\n"
        "    assert main(words) == status, words\n"
        "    assert 'torch' not in sys.modules, words\n"
        f"assert main({[*words, '-o', 'none']}) == 0\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1:] == ["True"], done.stderr


def complete(words: str, shell: str = "bash") -> list[str]:
    """Return what a shell offers for the last word of a command line."""
    env = dict(os.environ, _SVPSEG_COMPLETE=f"complete_{shell}", COMP_WORDS=words)
    env["COMP_CWORD"] = str(len(words.split(" ")) - 1)
    done = subprocess.run(
        [sys.executable, "-m", "napari_svpseg.cli"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    return sorted(done.stdout.split())


def test_shells_complete_commands_options_and_models(here) -> None:
    assert complete("svpseg seg") == ["segment"]
    assert complete("svpseg train") == ["train", "train-tags"]
    assert "--min-confidence" in complete("svpseg segment --min")
    assert "svp" in complete("svpseg segment a.tif --model s")


def test_the_completion_is_shown_for_a_shell(monkeypatch, capsys) -> None:
    monkeypatch.setattr("typer.completion._get_shell_name", lambda: "bash")
    with pytest.raises(SystemExit) as ended:
        svpseg("--show-completion")
    assert ended.value.code == 0
    assert "_SVPSEG_COMPLETE=complete_bash" in capsys.readouterr().out


def test_the_trace_is_there_for_those_who_ask(here, monkeypatch) -> None:
    monkeypatch.setenv(DEBUG, "1")
    with pytest.raises(ModelFormatError, match="nobody"):
        svpseg("models", "show", "nobody")


def test_help_of_every_command(here, capsys) -> None:
    for words in (
        (),
        ("segment",),
        ("prompts", "new"),
        ("models", "export"),
        ("models", "import"),
        ("finetune",),
        ("train",),
        ("train-tags",),
        ("benchmark",),
        ("benchmark-windows",),
        ("demo",),
    ):
        assert svpseg(*words, "--help") == 0
        assert capsys.readouterr().out.startswith("Usage:")
    assert svpseg("--version") == 0
    assert capsys.readouterr().out[0].isdigit()


def test_every_setting_is_an_option_with_its_default(here, monkeypatch, tmp_path):
    seen: dict[str, Any] = {}

    def fake(path, prompts, out, model, **given) -> FileOutcome:
        seen.update(given, model=model)
        return FileOutcome(str(path), "x", 1)

    monkeypatch.setattr(folder_run, "segment_file", fake)
    words = ("segment", "images/0.tif", *PROMPT, "-o", tmp_path, "--model", "tiny")
    assert svpseg(*words) == 0
    assert seen["settings"] == SegmentSettings()
    assert seen["postprocess"] == PostprocessSettings()
    recipe = Recipe(
        "tiny",
        query_file="images/0.tif",
        prompts_file="p.svprompt",
        segment={"tile": 256, "trust": False},
        postprocess={"labels": "classes", "min_confidence": 0.5},
        axes="ZYX",
        channels=(0, 2),
    )
    assert (
        svpseg(
            "prompts",
            "new",
            "p.svprompt",
            "--image",
            "images/0.tif",
            "--labels",
            "labels/0.tif",
            "--box",
            8,
            8,
        )
        == 0
    )
    assert svpseg(*recipe.to_command().split()[1:]) == 0
    assert seen["settings"] == SegmentSettings(tile=256, trust=False)
    assert seen["postprocess"] == PostprocessSettings(
        labels="classes", min_confidence=0.5
    )
    assert (seen["axes"], seen["channels"], seen["model"]) == ("ZYX", (0, 2), "tiny")


def test_prompts_new_show_merge(here, tmp_path, capsys, read_recipe) -> None:
    yes, no, both = (tmp_path / f"{n}.svprompt" for n in ("yes", "no", "both"))
    assert (
        svpseg(
            "prompts",
            "new",
            yes,
            "--image",
            "images/0.tif",
            "--labels",
            "labels/0.tif",
            "--box",
            "8",
            "8",
            "--name",
            "discs",
            "--image",
            "images/1.tif",
            "--labels",
            "labels/1.tif",
            "--box",
            "10",
            "20",
            "--name",
            "more",
        )
        == 0
    )
    assert (
        svpseg(
            "prompts",
            "new",
            no,
            "--image",
            "images/2.tif",
            "--box",
            "30,30",
            "--negative",
            "--size",
            "32",
        )
        == 0
    )
    assert svpseg("prompts", "merge", both, yes, no) == 0
    capsys.readouterr()
    assert svpseg("prompts", "show", both, "--json") == 0
    shown = json.loads(capsys.readouterr().out)["prompts"]
    assert [p["name"] for p in shown][:2] == ["discs", "more"]
    assert [p["negative"] for p in shown] == [False, False, True]
    assert shown[1]["box"] == {"y": 10, "x": 20, "size": 64}
    assert shown[2]["box"]["size"] == 32
    assert svpseg("prompts", "show", both) == 0
    out = tmp_path / "out"
    assert svpseg("segment", "images/4.tif", "--prompts", both, "-o", out, *TINY) == 0
    recipe = read_recipe(out / "4_labels.ome.tif")
    assert recipe is not None
    assert recipe.prompts_file == str(both)


def test_a_prompt_from_a_stack_asks_for_one_plane(here, tmp_path, pattern) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(
        path, np.zeros((5, 70, 70), np.uint8), imagej=True, metadata={"axes": "ZYX"}
    )
    with pytest.raises(ImageError, match=pattern(NOT_ONE_PLANE, path=path)):
        api.prompt_from_files(path, here / "labels" / "0.tif", (0, 0))


def test_chosen_channels_are_those_of_the_prompt_too(
    here, tmp_path, read_recipe
) -> None:
    image, labels = discs(0)
    other = np.zeros_like(image)
    tifffile.imwrite(tmp_path / "two.tif", np.stack([other, image]))
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    words = (
        "segment",
        tmp_path / "two.tif",
        "-o",
        tmp_path / "out",
        "--model",
        "tiny",
        "--prompt-image",
        tmp_path / "two.tif",
        "--box",
        "8",
        "8",
        "--prompt-labels",
        tmp_path / "labels.tif",
        "--axes",
        "CYX",
        "--channels",
        "1",
    )
    assert svpseg(*words) == 0
    written = tmp_path / "out" / "two_labels.ome.tif"
    assert read_recipe(written).channels == (1,)


def test_stacks_need_their_axes_said(here, tmp_path, capsys) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, np.stack([discs(7)[0]] * 2), metadata=None)
    out = tmp_path / "out"
    words = ("segment", path, *PROMPT, "-o", out, *TINY)
    assert svpseg(*words) == 1
    assert "declare them" in capsys.readouterr().err
    assert svpseg(*words, "--axes", "ZYX") == 0
    assert tifffile.imread(out / "stack_labels.ome.tif").shape == (2, 96, 100)


def positions(path: Path) -> Path:
    """Write an OME-TIFF with two positions."""
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for n in range(2):
            tiff.write(discs(n)[0], metadata={"axes": "YX", "Name": f"Pos{n}"})
    return path


def test_series_of_a_file_are_listed_and_chosen(here, tmp_path, capsys) -> None:
    path = positions(tmp_path / "multi.ome.tif")
    assert svpseg("series", path, "images/0.tif") == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed[:2] == [f"{path}: 0 Pos0", f"{path}: 1 Pos1"]
    assert len(listed) == 3
    out = tmp_path / "out"
    words = ("segment", path, *PROMPT, *TINY)
    assert svpseg(*words, "-o", out) == 0
    assert "Pos1" in capsys.readouterr().err  # what is not read is told
    assert names(out) == ["multi_labels.ome.tif"]
    assert svpseg(*words, "-o", out / "all", "--series", "all") == 0
    assert names(out / "all") == ["multi_0_labels.ome.tif", "multi_1_labels.ome.tif"]
    assert svpseg(*words, "-o", out / "one", "--series", "1, 7") == 1
    assert names(out / "one") == ["multi_1_labels.ome.tif"]
    assert svpseg(*words, "-o", out, "--series", "first") == 2
    assert svpseg(*words, "-o", out / "a.zarr", "--series", "all") == 2


def test_a_prompt_is_cut_from_a_series(here, tmp_path) -> None:
    path = positions(tmp_path / "multi.ome.tif")
    target = tmp_path / "a.svprompt"
    words = ("--labels", "labels/1.tif", "--box", "8", "8")
    assert svpseg("prompts", "new", target, "--image", path / "1", *words) == 0
    expected = prompt_from_files("images/1.tif", "labels/1.tif", (8, 8))
    np.testing.assert_array_equal(load_prompts(target)[0].image, expected.image)


def test_masks_that_lie_beside_images_are_left_out(here, tmp_path, capsys) -> None:
    folder, out = tmp_path / "f", tmp_path / "out"
    folder.mkdir()
    image, _ = discs(0)
    tifffile.imwrite(folder / "a.tif", image)
    for name in ("a_cp_masks.png", "a_labels.tif", "Mask of a.tif"):
        (folder / name).write_bytes(b"never read")
    tifffile.imwrite(folder / "mask.tif", image)  # of no image: one itself
    assert svpseg("segment", folder, *PROMPT, "-o", out, *TINY) == 0
    assert names(out) == ["a_labels.ome.tif", "mask_labels.ome.tif"]
    told = capsys.readouterr().err
    assert all(name in told for name in ("a_cp_masks.png", "Mask of a.tif"))


@pytest.mark.parametrize(
    ("image", "labels"), [("d=5uM.tif", "d=5uM_l.tif"), ("a.tif", "b=c.tif")]
)
def test_names_with_an_equals_sign(tmp_path, monkeypatch, image, labels) -> None:
    monkeypatch.chdir(tmp_path)
    Path(image).touch()
    Path(labels).touch()
    assert _pair(f"{image}={labels}") == (image, labels)
    with pytest.raises(typer.BadParameter):
        _pair("nothing")
    Path("a").touch()
    Path("a=b").touch()
    Path("c").touch()
    Path("b=c").touch()
    with pytest.raises(typer.BadParameter):  # two readings are as good
        _pair("a=b=c")


def test_models_list_show_export_import(here, tmp_path, monkeypatch, capsys) -> None:
    zipped = tmp_path / "tiny.zip"
    assert svpseg("models", "export", here / "tiny", "-o", zipped) == 0
    home = tmp_path / "home"
    monkeypatch.setenv("NAPARI_SVPSEG_HOME", str(home))
    monkeypatch.chdir(tmp_path)  # a folder of the model's name would come first
    assert svpseg("models", "import", zipped) == 0
    capsys.readouterr()
    assert svpseg("models") == 0
    table = capsys.readouterr().out
    assert "CC0-1.0" in table
    assert svpseg("models", "list", "--json") == 0
    (card,) = [c for c in json.loads(capsys.readouterr().out) if c["name"] == "tiny"]
    assert card["sha256"][:16] in table
    assert Path(card["path"]) == home / "models" / "tiny"
    assert svpseg("models", "show", "tiny") == 0
    assert f"sha256: {card['sha256']}" in capsys.readouterr().out
    assert svpseg("models", "show", "tiny", "--json") == 0
    assert json.loads(capsys.readouterr().out) == card


def test_every_listed_model_segments_the_demo_picture(
    tmp_path, monkeypatch, capsys
) -> None:
    """As does the dock, see tests/plugin/test_methods.py."""
    monkeypatch.setenv("NAPARI_SVPSEG_HOME", str(tmp_path / "home"))
    sample, (y, x) = tissue(), (124, 64)  # of the box, in a quarter of the image
    left = sample.box.x - x
    part = np.s_[sample.box.y - y :, left : left + 256]
    image, mask = sample.image[part], sample.labels[part]
    tifffile.imwrite(tmp_path / "tissue.tif", image, photometric="rgb")
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    assert svpseg("models", "list", "--json") == 0
    cards = json.loads(capsys.readouterr().out)
    assert {c["name"] for c in cards} >= METHODS
    for card in cards:
        assert card["method"] and card["licence"] and len(card["sha256"]) == 64
        assert card["n_parameters"] > 100_000
        assert card["paper"] or card["method"] == "svp"
        out = tmp_path / card["name"]
        assert (
            svpseg(
                "segment",
                tmp_path / "tissue.tif",
                "--model",
                card["name"],
                "--prompt-image",
                tmp_path / "tissue.tif",
                "--prompt-labels",
                tmp_path / "mask.tif",
                "--box",
                y,
                x,
                "-o",
                out,
                "--device",
                "cpu",
                "--no-trust",
            )
            == 0
        )
        found = tifffile.imread(out / "tissue_labels.ome.tif")
        inside = np.s_[y : y + 64, x : x + 64]
        assert dice(found[inside] > 0, mask[inside] > 0) > 0.6, card["name"]
        assert len(np.unique(found)) > 20, card["name"]


def test_the_folder_run_goes_on_after_it_was_killed(here, tmp_path) -> None:
    out = tmp_path / "out"
    images = tmp_path / "images"
    images.mkdir()
    for i in range(40):
        tifffile.imwrite(images / f"{i:02}.tif", discs(i)[0])
    command = [
        sys.executable,
        "-m",
        "napari_svpseg.cli.main",
        "segment",
        str(images),
        *PROMPT,
        "-o",
        str(out),
        *TINY,
        "--skip-done",
    ]
    env = dict(os.environ, OMP_NUM_THREADS="1", NAPARI_SVPSEG_HOME=str(here / "home"))
    command[command.index("tiny")] = str(here / "tiny")
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE) as process:
        limit = time.monotonic() + 60
        while len(list(out.glob("[0-9]*.tif"))) < 3 and time.monotonic() < limit:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    done = names(out)
    assert 3 <= len(done) < 40
    for name in done:
        assert tifffile.imread(out / name).shape == (96, 100)
    before = {name: (out / name).stat().st_mtime_ns for name in done}
    again = subprocess.run(
        command, env=env, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert names(out) == [f"{i:02}_labels.ome.tif" for i in range(40)]
    assert again.stdout.count(DONE_BEFORE) == len(done)
    assert all((out / n).stat().st_mtime_ns == t for n, t in before.items())


def test_leftovers_of_a_hard_kill_go_with_the_next_run(here, tmp_path) -> None:
    written = (".svpseg-0123456789ab-a_labels.ome.tif", ".svpseg-ba9876543210-b.tif")
    old, new, other = (tmp_path / n for n in (*written, ".hidden-file"))
    for path in (old, new, other):
        path.write_bytes(b"II*")
    os.utime(old, (1e9, 1e9))
    os.utime(other, (1e9, 1e9))
    assert svpseg("segment", "images/0.tif", *PROMPT, "-o", tmp_path, *TINY) == 0
    assert names(tmp_path) == [".hidden-file", new.name, "0_labels.ome.tif"]


@pytest.mark.slow
def test_the_same_job_runs_on_a_scheduler(here, tmp_path, monkeypatch, capsys) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(folder_run, "MAX_SUBMITTED", 2)
    security = distributed.Security.temporary()
    (tmp_path / "ca.pem").write_text(security.tls_ca_file)
    both = security.tls_client_cert + security.tls_client_key
    (tmp_path / "own.pem").write_text(both)
    keys = ("--tls-ca", tmp_path / "ca.pem", "--tls-cert", tmp_path / "own.pem")
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        dashboard_address=None,
        security=security,
    ) as cluster:
        (tmp_path / "b.tif").write_bytes(b"no image")
        words = ("segment", "images", tmp_path / "b.tif", *PROMPT, *TINY)
        address = cluster.scheduler_address
        there, local = tmp_path / "there", tmp_path / "local"
        assert address.startswith("tls://")
        assert svpseg(*words, "-o", there, "--scheduler", address, *keys) == 1
        assert "b.tif" in capsys.readouterr().err
        assert svpseg(*words, "-o", tmp_path / "c", "--scheduler", address) == 1
        err = capsys.readouterr().err
        assert address in err and len(err.splitlines()) == 1
        assert svpseg(*words, "-o", local) == 1
    assert names(there) == names(local) == [f"{i}_labels.ome.tif" for i in range(5)]
    for name in names(there):
        np.testing.assert_array_equal(
            tifffile.imread(there / name), tifffile.imread(local / name)
        )


@pytest.mark.parametrize(
    ("address", "options"),
    [
        ("tls://h:1", ["--tls-ca"]),
        ("tls://h:1", ["--tls-cert", "--tls-key"]),
        ("tcp://h:1", ["--tls-ca", "--tls-cert"]),
        ("h:1", ["--tls-ca", "--tls-cert"]),
        (None, ["--tls-ca", "--tls-cert", "--tls-key"]),
    ],
)
def test_certificates_that_no_connection_uses_are_refused(
    here, tmp_path, address, options
) -> None:
    (tmp_path / "a.pem").write_text("")
    words = [word for option in options for word in (option, tmp_path / "a.pem")]
    if address:
        words += ["--scheduler", address]
    assert svpseg("segment", "images", *PROMPT, *TINY, "-o", tmp_path, *words) == 2
    assert not (tmp_path / "run.json").exists()


def test_a_scheduler_that_is_not_there_is_one_line(
    here, tmp_path, monkeypatch, capsys
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("napari_svpseg.engine.jobs.workers.CONNECT_S", 0.5)
    assert (
        svpseg(
            "segment",
            "images",
            *PROMPT,
            *TINY,
            "-o",
            tmp_path,
            "--scheduler",
            "tcp://127.0.0.1:1",
        )
        == 1
    )
    err = capsys.readouterr().err
    assert "127.0.0.1:1" in err
    assert len(err.splitlines()) == 1


def test_a_read_only_folder_is_one_line(here, tmp_path, capsys) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert svpseg("segment", "images/0.tif", *PROMPT, "-o", blocked / "out", *TINY) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_unexpected_errors_are_one_line_too(here, monkeypatch, capsys) -> None:
    def broken() -> None:
        raise KeyError("surprise\nin two lines")

    monkeypatch.setattr(api, "list_models", broken)
    assert svpseg("models", "list") == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "KeyError" in err
    assert DEBUG in err


def test_correcting_writes_a_grown_prompt_file(place, tmp_path, capsys):
    def run(*words: object) -> int:
        return main(list(map(str, words)))

    image, labels = place / "images" / "0.tif", place / "labels" / "0.tif"
    start, grown = tmp_path / "start.svprompt", tmp_path / "grown.svprompt"
    words = ["--image", image, "--labels", labels, "--box", 8, 8]
    assert run("prompts", "new", start, *words) == 0
    here = ["correct", image, "--prompts", start, "--model", place / "tiny"]
    missed = tifffile.imread(labels) == 0
    assert run(*here, "-o", grown) == 2, "nothing is to be corrected"
    found = api.segment(tifffile.imread(image), load_prompts(start), place / "tiny")
    options = []
    for flag, where in (("--not-this", found.labels > 0), ("--this-too", missed)):
        places = np.argwhere(where & ((found.labels > 0) == (flag == "--not-this")))
        if len(places):
            options += [flag, *places[len(places) // 2]]
    assert options
    assert run(*here, *options, "-o", grown) == 0
    assert len(load_prompts(grown)) == 1 + len(options) // 3
    assert len(load_prompts(start)) == 1
    assert run(*here, *options, "-o", start, "--overwrite") == 1, "it is read"
    mine = grown.read_bytes()
    assert run(*here, "--not-this", 500, 0, "-o", grown, "--overwrite") == 1
    assert grown.read_bytes() == mine
    assert run(*here, "--not-this", "a", "-o", grown) == 2
    capsys.readouterr()
