"""A prompt file survives the trip; a hostile one does nothing."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import re
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_svpseg.core.geometry import BOX_TOO_LARGE, BOX_TOO_SMALL, NOT_WHOLE, Box
from napari_svpseg.core.prompt import (
    INTENSITY_COUNT,
    NEGATIVE_IDS,
    NOT_FINITE,
    UNKNOWN,
    Prompt,
    PromptError,
    PromptSet,
)
from napari_svpseg.io.atomic import REASONS, WriteError
from napari_svpseg.io.prompt_files import (
    BAD_COLOUR,
    BAD_ENTRY,
    BAD_INDEX,
    BAD_INTENSITIES,
    BAD_MASK,
    BAD_PACKING,
    BAD_PATH,
    BAD_PIXEL_SIZE,
    BAD_SHAPE,
    BAD_TIFF,
    MEMBER_TOO_LARGE,
    NO_INDEX,
    NO_SUCH_FILE,
    NOT_A_ZIP,
    OTHER_KIND,
    TOO_LARGE,
    TOO_MANY,
    TOO_MANY_LISTED,
    UNKNOWN_VERSION,
    PromptFileError,
    load_prompts,
    save_prompts,
)


def prompt(n_channels: int = 1, **changes) -> Prompt:
    rng = np.random.default_rng(n_channels)
    mask = np.zeros((64, 64), np.int32)
    mask[5:20, 5:20], mask[30:50, 30:50] = 1, 2
    made = Prompt(
        image=rng.normal(900, 300, (64, 64, n_channels)).astype(np.float32),
        mask=mask,
        intensities=np.sort(rng.random((n_channels, 2)), axis=1),
        box=Box(3, 7, 96),
        name="Zelle µ",
        source="a b.tif",
        channels=tuple(range(n_channels)),
        pixel_size=(0.5, 0.25),
        unit="um",
        color="#12ab00",
        enabled=False,
    )
    return replace(made, **changes)


def same(one: Prompt, two: Prompt) -> bool:
    return all(
        np.array_equal(getattr(one, f.name), getattr(two, f.name))
        if isinstance(getattr(one, f.name), np.ndarray)
        else getattr(one, f.name) == getattr(two, f.name)
        for f in fields(Prompt)
    )


def test_one_prompt_and_lists_of_prompts_are_sets(tmp_path):
    one = Prompt.from_image(np.eye(64), np.eye(64, dtype=int), (0, 0))
    for i, prompts in enumerate((one, [one], iter([one]))):
        assert len(load_prompts(save_prompts(prompts, tmp_path / f"{i}"))) == 1


@pytest.mark.parametrize("n_channels", [1, 2, 3, 5])
def test_every_field_comes_back(tmp_path, n_channels):
    prompts = PromptSet(
        [
            prompt(n_channels),
            prompt(
                n_channels,
                mask=np.zeros((64, 64), np.int32),
                channels=None,
                pixel_size=None,
                clicked=True,
            ),
        ],
        "mine",
    )
    path = save_prompts(prompts, tmp_path / "cells")
    assert path.name == "cells.svprompt"
    back = load_prompts(path)
    assert (back.name, len(back)) == ("mine", 2)
    assert all(same(a, b) for a, b in zip(prompts, back, strict=True))
    assert back[1].is_negative


def version_of(path: Path) -> int:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("prompts.json"))["version"]


@pytest.mark.parametrize("largest", [2, 40_000])
def test_unknown_pixels_come_back_and_need_version_2(tmp_path, largest):
    mask = np.full((64, 64), UNKNOWN, np.int32)
    mask[5:9, 5:9], mask[9:20, 9:20] = largest, 0
    both = PromptSet([prompt(), prompt(mask=mask)])
    path = save_prompts(both, tmp_path / "both")
    back = load_prompts(path)
    assert all(same(a, b) for a, b in zip(both, back, strict=True))
    assert version_of(path) == 2
    plain = save_prompts(PromptSet([prompt()]), tmp_path / "plain")
    assert version_of(plain) == 1, "older installations read it"


def test_a_file_of_version_1_holds_no_unknown_pixels(tmp_path, pattern):
    path = save_prompts(
        PromptSet([prompt(mask=np.full((64, 64), UNKNOWN) + np.eye(64, dtype=int))]),
        tmp_path / "new",
    )
    changed(path, edit_index(version=1))
    with pytest.raises(PromptFileError, match=pattern(NEGATIVE_IDS)):
        load_prompts(path)


@settings(max_examples=15, deadline=None)
@given(
    st.text(max_size=30),
    st.integers(-50, 9000),
    st.integers(16, 5000),
    st.floats(-1e6, 1e6, width=32),
)
def test_odd_names_corners_and_intensities_come_back(
    tmp_path_factory, name, corner, size, level
):
    made = prompt(
        name=name,
        box=Box(corner, 4, size),
        image=np.full((64, 64, 1), level, np.float32),
    )
    path = save_prompts(PromptSet([made]), tmp_path_factory.mktemp("p") / "a.svprompt")
    assert same(load_prompts(path)[0], made)


def test_other_programs_open_what_is_inside(tmp_path):
    path = save_prompts(PromptSet([prompt(2)]), tmp_path / "a.svprompt")
    with zipfile.ZipFile(path) as archive:
        image = tifffile.imread(io.BytesIO(archive.read("prompt-000-image.tif")))
        mask = tifffile.imread(io.BytesIO(archive.read("prompt-000-mask.tif")))
    assert image.shape == (2, 64, 64)
    assert mask.max() == 2


def test_an_empty_set_comes_back(tmp_path):
    assert len(load_prompts(save_prompts(PromptSet(), tmp_path / "a.svprompt"))) == 0


def changed(path, edit) -> None:
    """Rewrite a prompt file with its members changed by ``edit(dict)``."""
    with zipfile.ZipFile(path) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    members = edit(members) or members
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def edit_index(**values):
    def edit(members):
        index = json.loads(members["prompts.json"]) | values
        members["prompts.json"] = json.dumps(index).encode()

    return edit


def edit_entry(**values):
    def edit(members):
        index = json.loads(members["prompts.json"])
        index["prompts"][0] |= values
        members["prompts.json"] = json.dumps(index).encode()

    return edit


def tiff(array) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m | {"../evil.txt": b"x"}, BAD_PATH),
        (lambda m: m | {"/etc/evil": b"x"}, BAD_PATH),
        (lambda m: m | {"C:\\evil": b"x"}, BAD_PATH),
        (lambda m: m | {"folder/a": b"x"}, BAD_PATH),
        (lambda m: m | {"bomb": bytes(5_000_000)}, MEMBER_TOO_LARGE),
        (lambda m: {"other": b"x"}, NO_INDEX),
        (lambda m: {k: v for k, v in m.items() if "mask" not in k}, BAD_INDEX),
        (lambda m: m | {"prompts.json": b"{"}, BAD_INDEX),
        (lambda m: m | {"prompts.json": b"[]"}, OTHER_KIND),
        (edit_index(prompts=[{}] * 1001), TOO_MANY_LISTED),
        (edit_index(prompts=5), BAD_INDEX),
        (lambda m: m | {"prompts.json": b"[" * 100_000}, BAD_INDEX),
        (edit_entry(corner=[float("inf"), 0]), NOT_WHOLE),
        (edit_entry(size=10**400), BAD_INDEX),
        (edit_entry(intensities=[[0, 10**400]]), BAD_INDEX),
        (edit_entry(color="url(x)"), BAD_COLOUR),
        (edit_entry(name="a\nb", color=""), BAD_COLOUR),
        (edit_entry(channels=["x"]), BAD_INDEX),
        (edit_index(version=99), UNKNOWN_VERSION),
        (edit_index(format="x"), OTHER_KIND),
        (edit_index(prompts="abc"), BAD_INDEX),
        (edit_entry(corner=[1]), BAD_INDEX),
        (edit_entry(corner=7), BAD_ENTRY),
        (edit_entry(name=None), BAD_ENTRY),
        (edit_entry(mask=[]), BAD_ENTRY),
        (edit_entry(pixel_size=0.5), BAD_ENTRY),
        (edit_entry(channel_names=7), BAD_ENTRY),
        (edit_index(prompts=[7]), BAD_INDEX),
        (edit_index(prompts={}), BAD_INDEX),
        (edit_entry(size=3), BOX_TOO_SMALL),
        (edit_entry(size=10**9), BOX_TOO_LARGE),
        (edit_entry(intensities=[[0, float("nan")]]), BAD_INTENSITIES),
        (edit_entry(intensities=[]), INTENSITY_COUNT),
        (edit_entry(pixel_size=[0, -1]), BAD_PIXEL_SIZE),
        (edit_entry(image="prompts.json"), BAD_TIFF),
        (lambda m: m | {"prompt-000-image.tif": b"II*"}, BAD_TIFF),
        (
            lambda m: m | {"prompt-000-image.tif": tiff(np.zeros((65, 64)))},
            BAD_SHAPE,
        ),
        (
            lambda m: m | {"prompt-000-mask.tif": tiff(np.zeros((64, 64)))},
            BAD_MASK,
        ),
        (
            lambda m: (
                m
                | {"prompt-000-image.tif": tiff(np.full((64, 64), np.nan, np.float32))}
            ),
            NOT_FINITE,
        ),
    ],
)
def test_damaged_and_hostile_files_are_refused_in_one_line(
    tmp_path, edit, message, pattern
):
    path = save_prompts(PromptSet([prompt()]), tmp_path / "a.svprompt")
    changed(path, edit)
    known = {"version": 99} if message is UNKNOWN_VERSION else {}
    with pytest.raises(PromptFileError, match=pattern(message, **known)) as caught:
        load_prompts(path)
    assert str(path) in str(caught.value)
    assert not re.search(r"\n|Error|object", str(caught.value))
    assert [p.name for p in tmp_path.iterdir()] == ["a.svprompt"], (
        "nothing was unpacked"
    )


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_odd_packing_is_refused(tmp_path, packing, pattern):
    path = save_prompts(PromptSet([prompt()]), tmp_path / "a.svprompt")
    with zipfile.ZipFile(path, "a", packing) as archive:
        archive.writestr("more", bytes(1000))
    with pytest.raises(PromptFileError, match=pattern(BAD_PACKING, name="more")):
        load_prompts(path)


def test_an_encrypted_file_is_refused(tmp_path, pattern):
    path = save_prompts(PromptSet([prompt()]), tmp_path / "a.svprompt")
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\1\2") + 8] |= 1  # the flag of encryption, last member
    path.write_bytes(data)
    with pytest.raises(PromptFileError, match=pattern(BAD_PACKING)):
        load_prompts(path)


def test_the_total_size_of_the_members_is_limited(tmp_path):
    path = tmp_path / "a.svprompt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("prompts.json", "{}")
        for i in range(101):
            archive.writestr(str(i), bytes(4_000_000))
    with pytest.raises(PromptFileError, match=TOO_LARGE):
        load_prompts(path)


def test_prompts_over_the_limits_of_a_file_are_not_written(tmp_path):
    with pytest.raises(PromptError, match=TOO_MANY):
        save_prompts(PromptSet([prompt(65)]), tmp_path / "a.svprompt")
    with pytest.raises(PromptError, match=TOO_MANY):
        save_prompts(PromptSet([prompt()] * 1001), tmp_path / "a.svprompt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("cells", "cells.svprompt"),
        ("cells v1.2", "cells v1.2.svprompt"),
        ("cells.svprompt", "cells.svprompt"),
        ("Cells.SVPROMPT", "Cells.SVPROMPT"),
    ],
)
def test_a_missing_suffix_is_added(tmp_path, name, written):
    assert save_prompts(PromptSet([prompt()]), tmp_path / name).name == written


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), st.integers(1, 30))
def test_bytes_changed_at_random_are_read_or_refused(tmp_path_factory, seed, n):
    rng = np.random.default_rng(seed)
    path = save_prompts(
        PromptSet([prompt()]), tmp_path_factory.mktemp("fuzz") / "a.svprompt"
    )
    data = bytearray(path.read_bytes())
    for at in rng.integers(0, len(data), n):
        data[at] = rng.integers(256)
    path.write_bytes(data)
    with contextlib.suppress(PromptFileError):
        load_prompts(path)


def test_a_wrong_declared_size_is_detected(tmp_path):
    path = save_prompts(PromptSet([prompt()]), tmp_path / "a.svprompt")
    changed(path, lambda m: m | {"prompt-000-mask.tif": bytes(9_000_000)})
    data = path.read_bytes().replace((9_000_000).to_bytes(4, "little"), b"\x10\0\0\0")
    path.write_bytes(data)
    with pytest.raises(PromptFileError):
        load_prompts(path)


@pytest.mark.parametrize("content", [b"", b"PK\3\4 and nonsense", b"not a zip at all"])
def test_what_is_no_zip_is_named(tmp_path, content, pattern):
    path = tmp_path / "a.svprompt"
    path.write_bytes(content)
    with pytest.raises(PromptFileError, match=r"a\.svprompt: " + pattern(NOT_A_ZIP)):
        load_prompts(path)
    with pytest.raises(PromptFileError, match=NO_SUCH_FILE):
        load_prompts(tmp_path / "none.svprompt")


def test_a_truncated_file_is_named(tmp_path):
    path = save_prompts(PromptSet([prompt()]), tmp_path / "a.svprompt")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(PromptFileError, match=r"a\.svprompt"):
        load_prompts(path)


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    path = save_prompts(PromptSet([prompt()]), tmp_path / "a.svprompt")
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WriteError, match=REASONS[errno.ENOSPC]):
        save_prompts(PromptSet([prompt(), prompt()]), path, overwrite=True)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
