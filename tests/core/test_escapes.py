"""Text from files that is shown."""

from __future__ import annotations

import unicodedata

import pytest

from napari_svpseg.core.errors import one_line, short_line
from napari_svpseg.core.escapes import HIDDEN, UNSHOWN, escaped


@pytest.mark.parametrize(
    "text",
    ["cells 1.tif", "Zellkörper", "細胞", "نص", "a\u200db \u200c", "😀", r"C:\new", ""],
)
def test_names_of_all_scripts_stay_as_they_are(text) -> None:
    assert escaped(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Ja", r"\x1b[2Ja"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("a\u202etif.exe", r"a\u202etif.exe"),
        ("a\u2028b\ufeff", r"a\u2028b\ufeff"),
        ("\udcff.tif", r"\udcff.tif"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_control_and_hidden_characters_are_seen(text, shown) -> None:
    assert escaped(text) == shown
    shown.encode("utf-8")


def test_no_control_character_is_left() -> None:
    every = "".join(map(chr, range(0x110000)))
    left = escaped(every)
    assert not HIDDEN & set(left)
    assert not {unicodedata.category(c) for c in left} & UNSHOWN


def test_errors_are_escaped() -> None:
    error = ValueError("\x1b]0;x\x07.tif: is no image")
    shown = r"\x1b]0;x\x07.tif: is no image"
    assert one_line(error) == short_line(error) == shown
    assert one_line(OSError(2, "not there", "a\n\x1b.tif")) == r"a\n\x1b.tif: not there"
