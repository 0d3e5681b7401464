"""Options: every setting below, above and beside what it may be, on every command."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path

from napari_svpseg.core.annotation.image_tags import TagTrainingSettings
from napari_svpseg.core.jobs.finetune_job import FineTuneSettings
from napari_svpseg.core.settings import (
    PostprocessSettings,
    SegmentSettings,
    Settings,
    flag_of,
)

from ..case import Action, Case, Place, either, refused
from ..scene import N_DISCS, objects, segment, write_image

COMMANDS: dict[str, tuple[type[Settings], ...]] = {
    "segment": (SegmentSettings, PostprocessSettings),
    "finetune": (FineTuneSettings,),
    "train-tags": (TagTrainingSettings,),
}
NO_OPTION = ("preset", "seconds", "prompts")
WRONG = ("", "x", "nan", "inf", "-inf", "1e400", "0x10", "1,5", "true", "9" * 400)


def cases() -> Iterator[Case]:
    """Yield the cases of this group."""
    for command, kinds in COMMANDS.items():
        for setting in (f for kind in kinds for f in fields(kind)):
            if command == "finetune" and setting.name in NO_OPTION:
                continue
            if isinstance(setting.default, bool):
                continue
            for value in _values(setting):
                flag = flag_of(setting)
                yield Case(
                    "options",
                    f"{command} {flag} {value[:12]!r}",
                    lambda place, c=command, f=flag, v=value: _words(c, place, f, v),
                    refused(setting.name.split("_")[0]),
                )
    for words in (
        ("--no-such-option",),
        ("--threshold",),
        ("--device", "tpu"),
        ("--device", ""),
        ("--device", "cuda:x"),
        ("--device", "cuda:-1"),
        ("--formats", "docx"),
        ("--formats", ""),
        ("--formats", ","),
        ("--formats", "csv,,x"),
        ("--pattern", ""),
        ("--pattern", "{name"),
        ("--pattern", "{nome}"),
        ("--pattern", "x"),
        ("--pattern", "../{name}"),
        ("--pattern", "{name}/x"),
        ("--pattern", "{0}"),
        ("--pattern", "{name.__class__}"),
        ("--pattern", "{name:>999999999}"),
        ("--as", "cells"),
        ("--as", ""),
        ("--threshold", "0.5", "--threshold", "2"),
        ("--split", "yes"),
    ):
        names = {"--formats": "format", "--split": "yes"}.get(words[0], words[0][2:])
        expected = refused(names)
        yield Case(
            "options",
            f"segment {' '.join(words)}".replace("/", " "),
            lambda place, words=words: _words("segment", place, *words),
            expected,
        )
    for words in (
        ("--tile", "64", "--overlap", "64"), ("--tile", "64", "--overlap", "1024"),
        ("--tile", "65"), ("--overlap", "0"), ("--refine", "1"), ("--min-area", "0"),
        ("--device", "CPU"), ("--device", "cuda"), ("--threshold", "0.05"),
        ("--min-confidence", "1"), ("--split-strength", "0"), ("--batch", "256"),
    ):  # fmt: skip
        yield Case(
            "options",
            f"segment {' '.join(words)}",
            lambda place, words=words: _words("segment", place, *words),
            either(objects(range(1, N_DISCS + 4)), words[0].strip("-")),
        )
    for argv in (
        ("gone",),
        ("segment",),
        ("prompts", "new"),
        ("models", "x"),
        ("segment", "a.tif"),
        ("finetune",),
        ("train",),
        ("train-tags",),
        ("benchmark",),
        ("models", "export", "svp"),
        ("prompts", "merge", "p.svprompt"),
        ("-x",),
        ("segment", "--job", "gone.json"),
        ("train", "gone.toml"),
        ("train", "x.toml", "--self-supervised", "x"),
        ("train", "--self-supervised", "gone", "-o", "m"),
        ("benchmark", "gone"),
        ("prompts", "merge", "p.svprompt", "gone.svprompt"),
        ("demo", "--output", "/dev/null/x"),
        ("models", "import", "gone.zip"),
        ("models", "import", "a.zip", "b.zip", "--name", "x"),
    ):
        yield Case(
            "options",
            f"svpseg {' '.join(argv)}".replace("/", " "),
            lambda place, argv=argv: list(argv),
            refused(*[w for w in argv[-1:] if w.startswith("gone")]),
        )


def _values(setting: Field) -> Iterator[str]:
    """Yield values that a setting does not allow."""
    low, high = setting.metadata["low"], setting.metadata["high"]
    if setting.metadata["choices"]:
        yield from ("", "x", "OBJECTS", "1")
    if low is None:
        return
    if (
        not isinstance(setting.default, bool | int | float)
        and setting.default is not None
    ):
        return
    yield str(low - 1)
    if high is not None:
        yield str(high + 1)
    whole = isinstance(setting.default, int)
    # where nothing is too large, the many nines are a number like any other
    yield from (v for v in WRONG if not (whole and high is None and v.isdecimal()))


def _words(command: str, place: Place, *more: object) -> Action:
    image = write_image(Path("a.tif"))
    if command == "segment":
        return segment(place, image, *more)
    if command == "finetune":
        pair = f"{image}={place.base / 'partial.tif'}"
        start = ("--start-from", place.base / "tiny-svp")
        return ["finetune", pair, "-o", "m", *start, "--device", "cpu", *more]
    Path("disc").mkdir()
    write_image(Path("disc/b.tif"))
    start = ("--start-from", place.base / "tiny-svp")
    return ["train-tags", ".", "-o", "m", *start, "--device", "cpu", *more]
