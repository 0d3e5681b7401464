"""Everything but the plugin runs where neither napari nor Qt is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tifffile

HIDE = """
import sys
from importlib.abc import MetaPathFinder

HIDDEN = {"napari", "npe2", "vispy", "app_model", "qtpy", "PyQt6", "PySide6", "PyQt5"}

class Hidden(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
"""

RUN = """
from napari_svpseg.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def run(code: str, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", HIDE + code, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_segment_a_folder(tmp_path, disc_scene, tiny_model):
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images" / "a.tif", disc_scene.image)
    tifffile.imwrite(tmp_path / "labels.tif", disc_scene.labels)
    done = run(
        RUN, "segment", "images", "--prompt-image", "images/a.tif", "--prompt-labels",
        "labels.tif", "--box", "8", "8", "--model", tiny_model, "--device", "cpu", "-o",
        "out", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "a_labels.ome.tif").is_file()


def test_napari_is_hidden(tmp_path):
    done = run("import napari", cwd=tmp_path)
    assert "ModuleNotFoundError" in done.stderr


def test_demo_says_what_to_install(tmp_path):
    code = "import importlib.util\nimportlib.util.find_spec = lambda name: None\n"
    done = run(code + RUN, "demo", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
