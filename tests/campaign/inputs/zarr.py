"""Zarr stores: every entry of their metadata with odd values, damaged chunks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..case import Action, Case, Place, Seen, either, refused, right
from ..scene import N_DISCS, SIDE, discs, segment

STORE = "a.zarr"
ODD: dict[str, Any] = {
    "null": None,
    "text": "x",
    "-1": -1,
    "0": 0,
    "1e12": 10**12,
    "list": [],
    "dict": {},
    "missing": ...,
}
ARRAY = {
    2: ("shape", "chunks", "dtype", "compressor", "fill_value", "order", "zarr_format"),
    3: (
        "shape",
        "data_type",
        "chunk_grid",
        "chunk_key_encoding",
        "codecs",
        "fill_value",
        "node_type",
        "zarr_format",
    ),
}
"""Entries of the metadata of an array, by its format."""

IMAGE = ("axes", "datasets", "version", "coordinateTransformations", "name")
"""Entries of the description of an image."""


def cases() -> Iterator[Case]:
    """Yield the cases of this group."""
    for version in (2, 3):
        yield Case(
            "zarr",
            f"{version} as it is",
            partial(_store, version, lambda s: None),
            right(_found()),
        )
        for entry in ARRAY[version]:
            for name, value in ODD.items():
                yield Case(
                    "zarr",
                    f"{version} {entry} is {name}",
                    partial(_store, version, partial(_array_entry, entry, value)),
                    either(_found(), STORE),
                )
        for entry in IMAGE:
            for name, value in ODD.items():
                yield Case(
                    "zarr",
                    f"{version} multiscales {entry} is {name}",
                    partial(_store, version, partial(_image_entry, entry, value)),
                    either(_found(), STORE),
                )
        for name, change, blank in _stores():
            yield Case(
                "zarr",
                f"{version} {name}",
                partial(_store, version, change),
                either(_found(*range(N_DISCS + 1)), STORE) if blank else refused(STORE),
            )
    yield Case("zarr", "declares 1e6 x 1e6", partial(_sparse, 10**6), refused(STORE))
    for level in (1, -1, 99):
        yield Case(
            "zarr",
            f"level {level}",
            partial(_words, "--level", level),
            refused(STORE if level == 1 else "--level"),
        )
    for name in ("", ".", "..", "a/b", "../up", "a\\b", "x" * 300):
        yield Case(
            "zarr",
            f"labels called {name[:9]!r}".replace("/", " "),
            partial(_words, "--name", name),
            refused(name[:99].replace("\\", "\\\\")),
        )
    for workers in (-1, -(10**9)):
        yield Case(
            "zarr",
            f"{workers} workers",
            partial(_words, "--workers", workers),
            refused("workers"),
        )
    for address in ("nowhere", "tcp://127.0.0.1:1", "tcp://", "http://x", ""):
        yield Case(
            "zarr",
            f"scheduler {address!r}".replace("/", " "),
            partial(_words, "--scheduler", address),
            refused(address) if address else either(_found(), "scheduler"),
        )


def _found(*numbers: int) -> Callable[[Path, Seen], None]:
    """Return a check of the labels in a store: number of objects, shape, dtype."""

    def check(here: Path, seen: Seen) -> None:
        import zarr

        group = zarr.open_group(here / STORE / "labels" / "cells", mode="r")
        labels = np.asarray(group["0"][:])
        assert labels.shape == (SIDE, SIDE), f"shape {labels.shape}"
        n = len(np.unique(labels[labels > 0]))
        assert n in (numbers or (N_DISCS,)), f"{n} objects, not {N_DISCS}"

    return check


def _run(*more: object, place: Place) -> Action:
    words = segment(place, STORE, "--workers", 0, *more)
    at = words.index("-o")
    return [*words[:at], *words[at + 2 :]]


def _words(option: str, value: object, place: Place) -> Action:
    _write(2)
    words = list(_run(place=place))
    if option in ("--workers", "--scheduler"):
        at = words.index("--workers")
        words = [*words[:at], *words[at + 2 :]]
    return [*words, option, value]


def _write(version: int) -> None:
    """Write the discs as an OME-Zarr image, of Zarr format 2 or 3."""
    import zarr

    group = zarr.open_group(STORE, mode="w", zarr_format=version)
    more = (
        {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if version == 2 else {}
    )
    array = group.create_array(
        "0", shape=(SIDE, SIDE), chunks=(64, 64), dtype="u1", **more
    )
    array[:] = discs()[0]
    scales = [
        {
            "version": "0.4",
            "name": "discs",
            "axes": [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"],
            "datasets": [
                {
                    "path": "0",
                    "coordinateTransformations": [
                        {"type": "scale", "scale": [0.5, 0.5]}
                    ],
                }
            ],
            "coordinateTransformations": [{"type": "scale", "scale": [1, 1]}],
        }
    ]
    group.attrs.update(
        {"multiscales": scales}
        if version == 2
        else {"ome": {"version": "0.5", "multiscales": scales}}
    )


def _store(version: int, change: Callable[[Path], None], place: Place) -> Action:
    _write(version)
    change(Path(STORE))
    return _run(place=place)


def _changed(path: Path, entry: str, value: Any, *within: Any) -> None:
    """Change an entry of a JSON file, somewhere within it."""
    values = json.loads(path.read_text())
    there = values
    for step in within:
        there = there[step]
    if value is ...:
        there.pop(entry, None)
    else:
        there[entry] = value
    path.write_text(json.dumps(values))


def _array_entry(entry: str, value: Any, store: Path) -> None:
    path = store / "0" / ".zarray"
    _changed(path if path.exists() else store / "0" / "zarr.json", entry, value)


def _image_entry(entry: str, value: Any, store: Path) -> None:
    old = store / ".zattrs"
    if old.exists():
        _changed(old, entry, value, "multiscales", 0)
    else:
        within = ("attributes", "ome", "multiscales", 0)
        _changed(store / "zarr.json", entry, value, *within)


def _metadata(store: Path) -> list[Path]:
    names = (".zattrs", ".zgroup", ".zarray", "zarr.json")
    return [p for name in names for p in store.rglob(name)]


def _stores() -> Iterator[tuple[str, Callable[[Path], None], bool]]:
    """Yield ways to damage a store, and whether a result may be found in it."""

    def chunks(store: Path) -> list[Path]:
        known = _metadata(store)
        return [p for p in (store / "0").rglob("*") if p.is_file() and p not in known]

    def no_chunks(store: Path) -> None:
        for path in chunks(store):
            path.unlink()

    def cut_chunks(store: Path) -> None:
        for path in chunks(store):
            path.write_bytes(path.read_bytes()[:20])

    def text_chunks(store: Path) -> None:
        for path in chunks(store):
            path.write_bytes(b"no chunk at all, but text")

    def empty_chunks(store: Path) -> None:
        for path in chunks(store):
            path.write_bytes(b"")

    def folder_chunk(store: Path) -> None:
        path = chunks(store)[0]
        path.unlink()
        path.mkdir()

    def no_metadata(store: Path) -> None:
        for path in _metadata(store):
            path.unlink()

    def broken_metadata(store: Path) -> None:
        for path in _metadata(store):
            path.write_text("{")

    def list_metadata(store: Path) -> None:
        for path in _metadata(store):
            path.write_text("[]")

    def empty(store: Path) -> None:
        shutil.rmtree(store)
        store.mkdir()

    def a_file(store: Path) -> None:
        shutil.rmtree(store)
        store.write_bytes(b"no store")

    def gone(store: Path) -> None:
        shutil.rmtree(store)

    def no_array(store: Path) -> None:
        shutil.rmtree(store / "0")

    yield "chunks missing", no_chunks, True
    yield "a folder in place of a chunk", folder_chunk, True
    for change in (
        cut_chunks,
        text_chunks,
        empty_chunks,
        no_metadata,
        broken_metadata,
        list_metadata,
        empty,
        a_file,
        gone,
        no_array,
    ):
        yield change.__name__.replace("_", " "), change, False


def _sparse(side: int, place: Place) -> Action:
    """Declare a huge image that has no chunk, as a damaged store does."""
    import zarr

    zarr.create_array(STORE, shape=(side, side), chunks=(1024, 1024), dtype="u1")
    return _run(place=place)
