"""The rings: who may import whom, and what is never loaded."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import grimp
import numpy as np
import pytest
import yaml
from scipy.sparse.csgraph import connected_components

import napari_svpseg

PACKAGE = Path(napari_svpseg.__file__).parent
TOP = Path(__file__).parents[1]
HEAVY = {"torch"}
LIGHT_RINGS = ("core", "io", "plugin", "cli", "engine/jobs", "workflows")
LIGHT_MODULES = ("__init__", "api", "engine/__main__")


def light_files() -> list[Path]:
    files = [p for ring in LIGHT_RINGS for p in sorted((PACKAGE / ring).rglob("*.py"))]
    return files + [PACKAGE / f"{name}.py" for name in LIGHT_MODULES]


def imports_on_loading(tree: ast.AST) -> Iterator[str]:
    """Yield what a module imports as soon as it is imported itself."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]
        else:
            yield from imports_on_loading(node)


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_search_for_imports_finds_them() -> None:
    code = "try:\n    import torch.nn\nexcept ImportError:\n    pass"
    assert list(imports_on_loading(ast.parse(code))) == ["torch"]
    code = "def later():\n    import torch"
    assert list(imports_on_loading(ast.parse(code))) == []


@pytest.mark.parametrize("path", light_files(), ids=lambda p: p.stem)
def test_what_the_gui_imports_never_imports_torch_on_loading(path: Path) -> None:
    assert not HEAVY & set(imports_on_loading(ast.parse(path.read_text("utf-8"))))


def test_loading_everything_the_gui_needs_loads_no_torch() -> None:
    names = [
        "napari_svpseg." + str(p.relative_to(PACKAGE).with_suffix("")).replace("/", ".")
        for p in light_files()
        if p.stem not in ("__init__", "__main__")
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {[n.replace(chr(92), '.') for n in names]!r}:\n"
        "    importlib.import_module(name)\n"
        "print('torch' in sys.modules, 'napari' in sys.modules)"
    )
    assert run(code) == "False True"


def test_the_engine_process_loads_no_qt() -> None:
    code = (
        "import sys, napari_svpseg.api, napari_svpseg.engine.jobs.job\n"
        "import napari_svpseg.engine.inference.predict, napari_svpseg.io.model_store\n"
        "print([m for m in ('qtpy', 'napari', 'PyQt6', 'PySide6') if m in sys.modules])"
    )
    assert run(code) == "[]"


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "qtpy", "scipy", "napari", "magicgui")
    code = (
        "import sys, napari_svpseg\n"
        f"print([m for m in {heavy} if m in sys.modules], len(sys.modules) < 200)"
    )
    assert run(code) == "[] True"


def test_public_names_exist() -> None:
    assert {"segment", "Prompt", "read_image"} <= {*dir(napari_svpseg)}
    for name in napari_svpseg.__all__:
        assert getattr(napari_svpseg, name) is not None
    assert napari_svpseg.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="segmnet"):
        _ = napari_svpseg.segmnet


def test_public_names_load_no_torch() -> None:
    code = (
        "import sys\nfrom napari_svpseg import *\n"
        "print('torch' in sys.modules, 'napari' in sys.modules, segment.__name__)"
    )
    assert run(code) == "False False segment"


def test_sub_packages_are_empty_so_that_nothing_is_loaded_with_them() -> None:
    for ring in ("core", "models", "engine", "io", "plugin"):
        assert (PACKAGE / ring / "__init__.py").read_text() == ""


def test_rings_hold() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as lint;"
            "lint(['--no-cache', '--no-logo'])",
        ],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or not."""
    names = sorted(imports)
    links = np.array([[two in imports[one] for two in names] for one in names])
    n, group = connected_components(links, directed=True, connection="strong")
    found = [[m for m, g in zip(names, group, strict=True) if g == i] for i in range(n)]
    return [circle for circle in found if len(circle) > 1]


def test_the_search_for_circles_finds_them() -> None:
    imports = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}
    assert circles(imports) == [["a", "b", "c"]]
    assert circles(imports | {"c": {"d"}}) == []


def test_no_module_imports_itself_through_others() -> None:
    graph = grimp.build_graph(
        "napari_svpseg", exclude_type_checking_imports=True, cache_dir=None
    )
    imports = {m: graph.find_modules_directly_imported_by(m) for m in graph.modules}
    assert len(imports) > 100
    assert circles(imports) == []


def test_every_command_of_the_manifest_exists() -> None:
    manifest = yaml.safe_load((TOP / "napari.yaml").read_text("utf-8"))
    commands = manifest["contributions"]["commands"]
    assert commands
    for command in commands:
        module, _, name = command["python_name"].partition(":")
        assert callable(getattr(import_module(module), name)), command["id"]


def test_the_command_line_starts_light() -> None:
    """So that help and the completion of a shell answer at once."""
    code = (
        "import sys, napari_svpseg.cli.main\n"
        "print([m for m in ('scipy', 'skimage', 'tifffile') if m in sys.modules])"
    )
    assert run(code) == "[]"


def test_a_dock_opens_without_libraries_that_only_runs_and_tables_need():
    found = run(
        "import sys; import napari_svpseg.plugin.docks.segment_dock;"
        "from napari_svpseg.plugin.panels.objects_panel import ObjectsPanel;"
        "heavy = ('torch', 'pyqtgraph', 'skimage.transform', 'scipy.optimize',"
        " 'skimage.morphology', 'scipy.spatial', 'scipy.sparse.csgraph', 'PIL.Image');"
        "print([m for m in heavy if m in sys.modules])"
    )
    assert found == "[]"
