"""What commands print: names from files are text."""

from __future__ import annotations

import ast
import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import napari_svpseg.cli
from napari_svpseg.cli import console
from napari_svpseg.cli.main import main
from napari_svpseg.cli.segment import _print_each
from napari_svpseg.core.jobs.folder_job import FileOutcome
from napari_svpseg.core.model_card import ModelCard
from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.io.folder_records import append_log
from napari_svpseg.io.model_store import save_model
from napari_svpseg.io.prompt_files import save_prompts
from napari_svpseg.models.registry import ModelConfig, build

EVIL = "\x1b[2Jevil\u202e\x07"
SHOWN = r"\x1b[2Jevil\u202e\x07"


def printed(capsys) -> str:
    """Return all that was printed; nothing in it is a command to a terminal."""
    out, err = capsys.readouterr()
    assert not {c for c in out + err if not c.isprintable()} - {"\n"}
    return out + err


def test_only_the_console_prints() -> None:
    for path in Path(napari_svpseg.cli.__file__).parent.glob("*.py"):
        names = {
            node.func.id
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert "print" not in names or path.name == "console.py", path


def test_prompts_of_a_file(tmp_path, capsys) -> None:
    labels = np.zeros((64, 64), int)
    labels[20:40, 20:40] = 1
    image = labels.astype(np.float32)
    prompt = Prompt.from_image(image, labels, box=(0, 0), size=64, name=EVIL)
    prompt = replace(prompt, source=EVIL)
    path = save_prompts(PromptSet([prompt]), tmp_path / "a.svprompt")
    assert main(["prompts", "show", str(path)]) == 0
    assert printed(capsys).count(SHOWN) == 2
    assert main(["prompts", "show", str(path), "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["prompts"][0]["name"] == EVIL and out.isascii()


def test_models_of_others(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("NAPARI_SVPSEG_HOME", str(tmp_path))
    config = ModelConfig("panet", {"width": 8})
    card = ModelCard("a", "panet", config.arguments, title=EVIL, licence=EVIL)
    save_model(tmp_path / "models" / "a", build(config), card)
    assert main(["models", "list"]) == 0
    assert SHOWN in printed(capsys)
    assert main(["models", "show", "a"]) == 0
    assert printed(capsys).count(SHOWN) == 2


@pytest.mark.parametrize("words", [("prompts", "show"), ("models", "show")])
def test_errors(tmp_path, capsys, words) -> None:
    assert main([*words, str(tmp_path / f"{EVIL}.svprompt")]) == 1
    assert SHOWN in printed(capsys)


def test_wrong_usage(capsys) -> None:
    assert main(["prompts", EVIL]) == 2
    assert SHOWN in printed(capsys)


def test_progress_and_log(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    console.progress_line("segment")(1, 2, f"{EVIL}\n")
    err = capsys.readouterr().err
    assert err.startswith("\r") and SHOWN in err and err[1:].isprintable()
    record = logging.LogRecord("a", 30, "", 0, "%s\nb", (EVIL,), None)
    assert console.LogLine().format(record) == f"svpseg: {SHOWN}\nb"


def test_outcomes_of_files(capsys) -> None:
    bad = FileOutcome(EVIL, status="failed", error="is no image")
    good = FileOutcome(EVIL, labels=EVIL, objects=1, notes=(EVIL,), device="cpu")
    _print_each(3)([bad, good, replace(good, status="skipped")])
    assert printed(capsys).count(SHOWN) == 7


def test_the_log_of_a_run(tmp_path) -> None:
    append_log(tmp_path / "run.log", [EVIL, "b"])
    lines = (tmp_path / "run.log").read_text("utf-8").splitlines()
    assert len(lines) == 2 and lines[0].endswith(f" {SHOWN}")
