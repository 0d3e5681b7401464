"""Errors as one line."""

from __future__ import annotations

import errno

import pytest

from napari_svpseg.core.errors import SEE_WHERE, joined, one_line, short_line


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("a\n  b"), "a b"),
        (OSError(errno.ENOENT, "Not there", "a.tif"), "a.tif: Not there"),
        (OSError(errno.EXDEV, "Too far", "a", None, "b"), "a: b: Too far"),
        (OSError("read-only"), "read-only"),
        (KeyError("a"), f"KeyError: 'a'{SEE_WHERE}"),
        (ValueError(), f"ValueError{SEE_WHERE}"),
    ],
)
def test_an_error_is_one_line(error, text) -> None:
    assert one_line(error) == text
    assert one_line(error, hint="") == text.removesuffix(SEE_WHERE)


def test_a_long_message_is_cut() -> None:
    assert short_line(ValueError("a\nb")) == "a b"
    assert short_line(ValueError("x" * 300), 10) == "x" * 10 + "..."
    assert short_line(KeyError()) == "KeyError"
    assert joined(" a\t b\n") == "a b"
