"""Layers as plain values of a session."""

from __future__ import annotations

from napari_svpseg.plugin.services.session_layers import add_contents, changed_images


def test_an_image_that_was_replaced_since_is_named(tmp_path):
    paths = [tmp_path / f"{n}.tif" for n in range(3)]
    for path in paths:
        path.write_text("old")
    entries = [{"name": p.name, "path": str(p)} for p in paths]
    entries.append({"name": "drawn", "path": ""})
    known: dict[str, str] = {}
    add_contents(entries, known)
    assert changed_images({"images": entries}) == []
    paths[0].write_text("new")
    paths[1].unlink()  # is told of as one that cannot be opened
    add_contents(entries, known)  # as it was when it was opened
    assert changed_images({"images": entries}) == ["0.tif"]
    earlier = [{"name": "a", "path": str(paths[2])}]  # of an earlier version
    assert changed_images({"images": earlier}) == []
