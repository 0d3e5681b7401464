"""Public names as mypy and editors see them, through the stub."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from mypy import api as mypy

import napari_svpseg as svpseg

SOURCES = Path(svpseg.__file__).parents[1]

CONFIG = f"""
[mypy]
strict = True
mypy_path = {SOURCES}
# What others' packages are is not the subject here, and takes long to read.
[mypy-torch.*,scipy.*,skimage.*,typer.*,tifffile.*]
follow_imports = skip
"""


class Checker:
    """Runs mypy on small pieces of code, with one cache for all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "mypy.ini").write_text(CONFIG, "utf-8")

    def __call__(self, code: str) -> str:
        path = self.folder / "code.py"
        path.write_text(f"import napari_svpseg as svpseg\n{code}", "utf-8")
        said, errors, _ = mypy.run(
            [
                f"--config-file={self.folder / 'mypy.ini'}",
                f"--cache-dir={self.folder / 'cache'}",
                str(path),
            ]
        )
        assert not errors, errors
        return said


@pytest.fixture(scope="module")
def check(tmp_path_factory) -> Checker:
    return Checker(tmp_path_factory.mktemp("types"))


@pytest.fixture(scope="module")
def revealed(check) -> dict[str, str]:
    """Return what mypy says that each public name is."""
    code = "".join(f"reveal_type(svpseg.{name})\n" for name in svpseg.__all__)
    found = re.findall(r'note: Revealed type is "(.*)"', check(code))
    return dict(zip(svpseg.__all__, found, strict=True))


@pytest.mark.parametrize("name", svpseg.__all__)
def test_a_public_name_has_its_real_type(revealed, name) -> None:
    value, text = getattr(svpseg, name), revealed[name]
    result = text.rpartition("-> ")[2]
    if inspect.isclass(value):
        assert result == f"{value.__module__}.{value.__qualname__}"
        if issubclass(value, Exception):
            return
    assert text.startswith("def (") and result != "Any"
    for parameter in inspect.signature(value).parameters:
        assert re.search(rf"\b{parameter}: ", text), (parameter, text)


def test_the_signature_of_segment_is_seen(revealed) -> None:
    for part in (
        "prompts: napari_svpseg.core.prompt.Prompt | ",
        "threshold: float | None =",
        "labels: Literal['objects'] | Literal['classes'] | None =",
        "settings: napari_svpseg.core.settings.SegmentSettings | None =",
        "-> napari_svpseg.core.result.Result",
    ):
        assert part in revealed["segment"], part


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("svpseg.segmnet", 'has no attribute "segmnet"'),
        ("svpseg.segment([[1]], treshold=0.5)", "Unexpected keyword argument"),
        ("svpseg.segment([[1]], labels='boxes')", 'has incompatible type "Literal'),
        ("svpseg.SegmentSettings(tile='large')", 'has incompatible type "str"'),
        ("svpseg.segment([[1]]).n_objects.nonsense", 'has no attribute "nonsense"'),
    ],
)
def test_wrong_code_is_found(check, code, complaint) -> None:
    assert complaint in check(f"{code}\n")


def test_right_code_passes(check) -> None:
    said = check(
        "prompts = svpseg.load_prompts('cells.svprompt')\n"
        "image = svpseg.read_image('a.tif').array\n"
        "result = svpseg.segment(image, prompts, labels='classes', min_area=30)\n"
        "again = svpseg.postprocess(result.maps, split=False)\n"
        "print(result.n_objects, again.max(), result.recipe.to_command())\n"
    )
    assert said.startswith("Success")
