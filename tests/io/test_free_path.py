"""Names for new files that are not taken."""

from __future__ import annotations

from napari_svpseg.io.free_path import free_path


def test_a_free_path_stays(tmp_path) -> None:
    assert free_path(tmp_path / "cells 1.5") == tmp_path / "cells 1.5"


def test_a_taken_path_gets_the_first_free_number(tmp_path) -> None:
    for name in ("cells 1.5", "cells 1.5 2"):
        (tmp_path / name).mkdir()
    assert free_path(tmp_path / "cells 1.5").name == "cells 1.5 3"
    free = free_path(tmp_path / "cells 1.5", taken=["cells 1.5 3"])
    assert free.name == "cells 1.5 4"


def test_the_number_goes_before_the_suffix(tmp_path) -> None:
    (tmp_path / "tags-2.csv").write_text("")
    free = free_path(tmp_path / "tags.csv", suffix=".csv", separator="-", first=2)
    assert free == tmp_path / "tags-3.csv"
