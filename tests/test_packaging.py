"""The wheel, the sdist and the editable install, each in an empty environment."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).parents[1]
LARGEST_WHEEL_MB = 30
NON_COMMERCIAL = re.compile(r"\bNC\b|non.?commercial|research", re.IGNORECASE)
OURS = re.compile(r"napari[_-]svpseg|_editable_impl_napari|__editable__", re.IGNORECASE)

LOOK = """
import json, sys
from pathlib import Path
from npe2 import PluginManager
manager = PluginManager.instance()
manager.discover()
manifest = manager.get_manifest("napari-svpseg")
import napari_svpseg
beside = Path(napari_svpseg.__file__).parent / "napari.yaml"
from napari_svpseg.io.model_store import builtin_folder
cards = napari_svpseg.list_models()
cards = [c for c in cards if Path(c.path).parent == builtin_folder()]
loaded = napari_svpseg.load_model(cards[0].path)
print(json.dumps({
    "package": napari_svpseg.__file__, "version": napari_svpseg.__version__,
    "commands": [c.id for c in manifest.contributions.commands],
    "widgets": [w.display_name for w in manifest.contributions.widgets],
    "manifest": beside.read_text("utf-8"),
    "models": {c.name: c.sha256 for c in cards}, "loaded": loaded.card.name,
    "parameters": sum(p.numel() for p in loaded.network.parameters()),
}))
"""


def clean_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}


def run(*command: str | Path, cwd: Path, **extra: str) -> str:
    env = clean_environment() | extra
    done = subprocess.run(
        [str(c) for c in command],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(kind: str, source: Path, folder: Path) -> Path:
    python = sys.executable
    run(python, "-m", "hatchling", "build", "-t", kind, "-d", folder, cwd=source)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return build("wheel", TOP, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    return build("sdist", TOP, tmp_path_factory.mktemp("sdist"))


def empty_environment(folder: Path) -> Path:
    """Return the Python of a new environment that has our dependencies but not us.

    Downloading them again would take minutes, so a ``.pth`` file points to links to
    what is installed here, all but this package itself.
    """
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    scripts = "Scripts" if os.name == "nt" else "bin"
    python = folder / scripts / Path(sys.executable).name
    site = Path(
        run(
            python,
            "-c",
            "import sysconfig; print(sysconfig.get_path('purelib'))",
            cwd=folder,
        ).strip()
    )
    links = folder / "dependencies"
    links.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not OURS.match(path.name):
            (links / path.name).symlink_to(path, target_is_directory=path.is_dir())
    (site / "dependencies.pth").write_text(str(links))
    return python


def look(python: Path, home: Path) -> dict[str, Any]:
    found = run(python, "-c", LOOK, cwd=home, NAPARI_SVPSEG_HOME=str(home))
    answer: dict[str, Any] = json.loads(found.splitlines()[-1])
    return answer


def test_an_empty_environment_does_not_have_us(tmp_path) -> None:
    python = empty_environment(tmp_path / "env")
    done = subprocess.run(
        [str(python), "-c", "import numpy, napari_svpseg"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "No module named 'napari_svpseg'" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_installed_the_plugin_is_found_and_a_model_loads(kind, wheel, tmp_path) -> None:
    python = empty_environment(tmp_path / "env")
    install = [str(wheel)] if kind == "wheel" else ["--no-build-isolation", "-e", TOP]
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", *install, cwd=tmp_path)
    found = look(python, tmp_path)
    inside = TOP / "src" if kind == "editable" else tmp_path / "env"
    assert Path(found["package"]).is_relative_to(inside)
    assert found["manifest"] == (TOP / "napari.yaml").read_text("utf-8")
    assert "Segment from prompts" in found["widgets"]
    assert all(name.startswith("napari-svpseg.") for name in found["commands"])
    assert found["loaded"] in found["models"]
    assert found["parameters"] > 1000
    script = python.parent / ("svpseg.exe" if os.name == "nt" else "svpseg")
    listed = json.loads(run(script, "models", "list", "--json", cwd=tmp_path))
    assert {c["name"]: c["sha256"] for c in listed}.items() >= found["models"].items()
    assert all(c["licence"] for c in listed)


def test_the_wheel_holds_manifest_weights_and_nothing_else(wheel) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert len(names) == len(set(names))
    code = [n for n in names if not n.startswith("napari_svpseg-")]
    assert all(n.startswith("napari_svpseg/") for n in code)
    for name in ("napari.yaml", "py.typed", "__init__.pyi"):
        assert f"napari_svpseg/{name}" in code
    assert not [n for n in names if "test" in n or n.endswith(".pyc")]
    weights = {
        p.relative_to(TOP).as_posix()
        for p in (TOP / "weights").rglob("*.*")
        if TOP / "weights" / "research" not in p.parents
    }
    assert weights
    assert weights <= {n.removeprefix("napari_svpseg/") for n in code}
    assert wheel.stat().st_size < LARGEST_WHEEL_MB * 2**20


def licences(archive: Mapping[str, bytes]) -> dict[str, str]:
    """Return the licence of each model in an archive."""
    return {
        name: json.loads(data)["licence"]
        for name, data in archive.items()
        if name.endswith("/model.json")
    }


def test_the_search_for_licences_finds_one_that_forbids_commercial_use() -> None:
    card = TOP / "weights" / "research" / "svp-research" / "model.json"
    if not card.exists():
        pytest.skip("only a source checkout holds weights for research")
    (licence,) = licences({"weights/x/model.json": card.read_bytes()}).values()
    assert NON_COMMERCIAL.search(licence)


def test_no_distribution_holds_weights_that_forbid_commercial_use(wheel, sdist) -> None:
    with zipfile.ZipFile(wheel) as archive:
        wheel_licences = licences({n: archive.read(n) for n in archive.namelist()})
    with tarfile.open(sdist) as archive:
        sdist_licences = licences(
            {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}
        )
    assert len(wheel_licences) == len(sdist_licences) > 0
    for licence in (*wheel_licences.values(), *sdist_licences.values()):
        assert licence
        assert not NON_COMMERCIAL.search(licence)


def test_the_wheel_states_its_licence_and_links_that_work_elsewhere(wheel) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (about,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        text = archive.read(about).decode()
        assert (
            archive.read(about.replace("METADATA", "licenses/LICENSE"))
            == (TOP / "LICENSE").read_bytes()
        )
    assert "License-Expression: BSD-3-Clause" in text
    assert "# napari-svpseg" in text
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    assert not [link for link in links if not link.startswith(("http", "#"))]


def test_imports_and_declared_dependencies_agree() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deptry", "--no-ansi", "src"],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_the_sdist_is_complete(sdist, wheel, tmp_path) -> None:
    run(sys.executable, "-m", "tarfile", "-e", sdist, tmp_path, cwd=tmp_path)
    (source,) = tmp_path.iterdir()
    for name in (
        "Makefile",
        "constraints.txt",
        "napari.yaml",
        "weights",
        "tests",
        "benchmarks",
        "LICENSE",
        "README.md",
        "hatch_build.py",
        "scripts",
    ):
        assert (source / name).exists(), name
    assert not list(source.rglob("demo-output"))
    again = build("wheel", source, tmp_path / "again")
    with zipfile.ZipFile(wheel) as a, zipfile.ZipFile(again) as b:
        assert sorted(a.namelist()) == sorted(b.namelist())


def test_the_manifest_beside_the_code_is_that_of_the_top_level() -> None:
    beside = TOP / "src" / "napari_svpseg" / "napari.yaml"
    assert beside.read_bytes() == (TOP / "napari.yaml").read_bytes()


def test_the_manifest_is_valid() -> None:
    from npe2 import PluginManifest

    manifest = PluginManifest.from_file(TOP / "napari.yaml")
    manifest.validate_imports()
    assert manifest.name == "napari-svpseg"


def project() -> dict[str, Any]:
    return tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))["project"]


def test_neither_qt_nor_napari_is_among_the_dependencies() -> None:
    names = {re.split(r"[<>=\[ ;]", d)[0].lower() for d in project()["dependencies"]}
    assert "torch" in names
    assert "napari" not in names
    assert not names & {"pyqt5", "pyqt6", "pyside2", "pyside6"}
    assert project()["optional-dependencies"]["all"] == ["napari[all]>=0.7.1"]


def test_the_tested_versions_name_every_dependency_and_any_build_of_torch() -> None:
    pinned = dict(
        line.split("==")
        for line in (TOP / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    pinned = {name.lower().replace("_", "-"): v for name, v in pinned.items()}
    assert pinned["torch"] == "2.13.0"
    wanted = [re.split(r"[<>=\[ ;]", d)[0].lower() for d in project()["dependencies"]]
    assert not [name for name in wanted if name.replace("_", "-") not in pinned]
    assert "napari-svpseg" not in pinned


def test_no_file_of_the_project_names_the_machine_it_was_written_on() -> None:
    home = str(Path.home())
    for pattern in ("*.toml", "*.md", "*.yaml", "Makefile", "*.txt"):
        for path in TOP.glob(pattern):
            text = path.read_text("utf-8")
            assert str(TOP) + "/" not in text, path
            assert home + "/" not in text, path


def test_the_recipe_for_conda_lists_the_same_dependencies() -> None:
    recipe = (TOP / "recipe" / "recipe.yaml").read_text("utf-8")
    run = recipe[recipe.index("  run:\n") : recipe.index("\n  run_constraints:")]
    listed = {line.strip(" -") for line in run.splitlines()[2:] if line.strip()}
    named_otherwise = {"torch": "pytorch"}
    for dependency in project()["dependencies"]:
        name, version = re.fullmatch(r"([\w.-]+)(.*)", dependency).groups()
        wanted = f"{named_otherwise.get(name, name)} {version}".strip()
        assert wanted in listed, wanted
    assert len(listed) == len(project()["dependencies"])


def test_citation_and_changelog_name_the_same_version() -> None:
    citation = (TOP / "CITATION.cff").read_text("utf-8")
    changes = (TOP / "CHANGELOG.md").read_text("utf-8")
    (version,) = re.findall(r"^version: (\S+)", citation, re.MULTILINE)
    assert re.findall(r"^## (\d\S+)", changes, re.MULTILINE)[0] == version
