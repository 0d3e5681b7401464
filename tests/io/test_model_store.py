"""Models are found, checked, shared, and never half there."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import zipfile

import numpy as np
import pytest
import torch

from napari_svpseg.core.model_card import ModelCard
from napari_svpseg.io import model_archive, model_store
from napari_svpseg.io.atomic import REASONS, WriteError
from napari_svpseg.io.model_archive import (
    BAD_NAME,
    BAD_PATH,
    BUILTIN_NAME,
    CANNOT_READ,
    NAME_TAKEN,
    export_model,
    import_model,
)
from napari_svpseg.io.model_store import (
    BAD_ENTRY,
    CARD_DAMAGED,
    DO_NOT_FIT,
    HASHES_DIFFER,
    NO_MODEL,
    NOT_FINITE,
    PICKLED,
    UNKNOWN_VERSION,
    WEIGHTS_UNREADABLE,
    ModelFormatError,
    find_model,
    list_models,
    load_model,
    save_model,
    user_folder,
)
from napari_svpseg.io.ownership import ForeignTargetError
from napari_svpseg.models.registry import ModelConfig, build

ARGUMENTS = {"width": 4, "features": 8}


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SVPSEG_HOME", str(tmp_path / "home"))


def network():
    torch.manual_seed(0)
    return build(ModelConfig("panet", ARGUMENTS))


@pytest.fixture
def saved(tmp_path):
    card = ModelCard("mine", "panet", ARGUMENTS, scores={"cells": {"dice": 0.5}})
    return save_model(tmp_path / "mine", network(), card, history=[{"step": 1.0}])


def test_a_model_comes_back(saved, tmp_path):
    loaded = load_model(tmp_path / "mine")
    assert not loaded.network.training
    assert loaded.card == saved
    for name, value in network().state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value)
    assert sorted(p.name for p in (tmp_path / "mine").iterdir()) == [
        "README.md",
        "history.csv",
        "model.json",
        "weights.safetensors",
    ]
    assert "| cells | 0.500 |" in (tmp_path / "mine" / "README.md").read_text()


def test_models_are_found_by_name_where_the_user_keeps_them(saved, tmp_path, pattern):
    import_model(tmp_path / "mine")
    assert find_model("mine").path == str(user_folder() / "mine")
    assert "mine" in [c.name for c in list_models()]
    names = ", ".join(card.name for card in list_models())
    with pytest.raises(ModelFormatError, match=pattern(NO_MODEL, names=names)):
        find_model("other")


def test_listing_needs_no_torch(saved, tmp_path):
    import subprocess
    import sys

    code = (
        "import sys; from napari_svpseg.io.model_store import list_models; "
        "list_models(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_broken_folder_does_not_hide_the_others(saved, tmp_path, caplog):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.json").write_text("{")
    assert [c.name for c in list_models([tmp_path])] == ["mine"]
    assert "broken" in caplog.text


def edit_card(folder, **values):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"version": 2}, UNKNOWN_VERSION),
        ({"method": 5}, BAD_ENTRY),
        ({"method": "nope"}, DO_NOT_FIT),
        ({"arguments": {"width": 6}}, DO_NOT_FIT),
        ({"arguments": {"speed": 6}}, DO_NOT_FIT),
        ({"sha256": "0" * 64}, HASHES_DIFFER),
    ],
)
def test_a_wrong_card_is_refused_in_one_line(saved, tmp_path, values, message, pattern):
    edit_card(tmp_path / "mine", **values)
    known = {"folder": tmp_path / "mine", "version": 2, "entry": "method"}
    with pytest.raises(ModelFormatError, match=pattern(message, **known)) as caught:
        load_model(tmp_path / "mine")
    assert "mine" in str(caught.value)
    assert values.get("method") != "nope" or "nope" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", ""),
        ("name", None),
        ("method", ""),
        ("arguments", []),
        ("sha256", 5),
        ("licence", 5),
        ("n_parameters", "many"),
        ("scores", "good"),
        ("training", []),
    ],
)
def test_each_entry_of_a_card_has_its_type(
    saved, tmp_path, name, value, caplog, pattern
):
    edit_card(tmp_path / "mine", **{name: value})
    with pytest.raises(ModelFormatError, match=pattern(BAD_ENTRY, entry=name)):
        model_store.read_card(tmp_path / "mine")
    assert list_models([tmp_path]) == []
    assert name in caplog.text


@pytest.mark.parametrize("text", ["", "[]", "5", "[" * 100_000, "\xff"])
def test_a_card_that_is_no_object_is_refused(saved, tmp_path, text, pattern):
    (tmp_path / "mine" / "model.json").write_bytes(text.encode("latin1"))
    message = pattern(CARD_DAMAGED, path=tmp_path / "mine" / "model.json")
    with pytest.raises(ModelFormatError, match=message):
        load_model(tmp_path / "mine")


@pytest.mark.parametrize(
    "arguments", [{"width": "x"}, {"width": 0}, {"width": -1}, {"features": None}]
)
def test_arguments_that_build_nothing_are_refused(saved, tmp_path, arguments, pattern):
    edit_card(tmp_path / "mine", arguments=ARGUMENTS | arguments)
    with pytest.raises(ModelFormatError, match=pattern(DO_NOT_FIT)) as caught:
        load_model(tmp_path / "mine")
    assert "\n" not in str(caught.value)


def test_pickles_under_the_name_of_safetensors_are_refused(saved, tmp_path, pattern):
    path = tmp_path / "mine" / "weights.safetensors"
    torch.save(network().state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit_card(tmp_path / "mine", sha256=digest)
    with pytest.raises(ModelFormatError, match=pattern(DO_NOT_FIT)):
        load_model(tmp_path / "mine")


def test_half_written_folders_are_no_models(saved, tmp_path):
    shutil.copytree(tmp_path / "mine", tmp_path / ".77-mine")
    (card,) = list_models([tmp_path])
    assert card.path == str(tmp_path / "mine")


def test_folders_that_are_not_there_hold_no_models(tmp_path):
    (tmp_path / "file").write_text("x")
    assert list_models([tmp_path / "none", tmp_path / "file"]) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_model_never_replaces_anything_else(saved, tmp_path, overwrite):
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "thesis.txt").write_text("years")
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for folder in (documents, tmp_path / "mine"):
        with pytest.raises(ForeignTargetError):
            save_model(folder, network(), saved, overwrite=overwrite)
    with pytest.raises(ForeignTargetError):
        save_model(documents / "thesis.txt", network(), saved)
    assert (documents / "thesis.txt").read_text() == "years"
    (tmp_path / "mine" / "notes.txt").unlink()
    assert save_model(tmp_path / "mine", network(), saved) == saved


def test_a_full_disk_is_no_damaged_model(saved, tmp_path, monkeypatch):
    path = export_model(tmp_path / "mine", tmp_path / "mine.zip")

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_archive, "write_card", fail)
    for source in (path, tmp_path / "mine"):
        with pytest.raises(WriteError, match=REASONS[errno.ENOSPC]):
            import_model(source)
    assert not list(user_folder().iterdir())


def test_a_folder_with_corrupt_weights_is_not_imported(saved, tmp_path, pattern):
    (tmp_path / "mine" / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(ModelFormatError, match=pattern(HASHES_DIFFER)):
        import_model(tmp_path / "mine")
    assert not list(user_folder().iterdir())


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\3\4"])
def test_what_is_no_zip_is_not_imported(tmp_path, content, pattern):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(
        ModelFormatError, match=pattern(CANNOT_READ, path=tmp_path / "a.zip")
    ):
        import_model(tmp_path / "a.zip")
    with pytest.raises(
        ModelFormatError, match=pattern(CANNOT_READ, path=tmp_path / "b.zip")
    ):
        import_model(tmp_path / "b.zip")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(saved, tmp_path, pattern, value):
    loaded = load_model(tmp_path / "mine")
    name, weight = next(iter(loaded.network.state_dict().items()))
    weight.view(-1)[0] = value
    save_model(tmp_path / "mine", loaded.network, loaded.card)
    path = tmp_path / "mine" / "weights.safetensors"
    with pytest.raises(
        ModelFormatError, match=pattern(NOT_FINITE, path=path, name=name)
    ):
        load_model(tmp_path / "mine")


def test_corrupt_weights_are_refused(saved, tmp_path, pattern):
    path = tmp_path / "mine" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ModelFormatError, match=pattern(HASHES_DIFFER, path=path)):
        load_model(tmp_path / "mine")
    path.unlink()
    with pytest.raises(ModelFormatError, match=pattern(WEIGHTS_UNREADABLE, path=path)):
        load_model(tmp_path / "mine")


def test_pickled_weights_are_refused(tmp_path, pattern):
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pt")
    for use in (load_model, import_model):
        with pytest.raises(
            ModelFormatError, match=pattern(PICKLED, path=tmp_path / "a.pt")
        ):
            use(tmp_path / "a.pt")


def test_a_model_is_exported_and_imported_as_one_zip(saved, tmp_path, pattern):
    path = export_model(tmp_path / "mine", tmp_path / "mine.zip")
    card = import_model(path)
    assert card.sha256 == saved.sha256
    with pytest.raises(ModelFormatError, match=pattern(NAME_TAKEN, name="mine")):
        import_model(path)
    again = import_model(path, name="mine-2")
    assert (again.name, again.sha256) == ("mine-2", saved.sha256)
    assert find_model("mine-2").path == again.path


def test_no_import_is_hidden_by_a_built_in_model(saved, tmp_path, monkeypatch, pattern):
    monkeypatch.setattr(model_archive, "builtin_folder", lambda: tmp_path)
    with pytest.raises(ModelFormatError, match=pattern(BUILTIN_NAME, name="mine")):
        import_model(tmp_path / "mine")
    assert import_model(tmp_path / "mine", name="ours").name == "ours"


def test_models_for_research_are_listed_where_a_checkout_holds_them(
    saved, tmp_path, monkeypatch, pattern
):
    monkeypatch.setattr(model_store, "builtin_folder", lambda: tmp_path / "weights")
    assert saved.name not in [card.name for card in list_models()]
    shutil.copytree(tmp_path / "mine", tmp_path / "weights" / "research" / "mine")
    assert saved.name in [card.name for card in list_models()]
    with pytest.raises(ModelFormatError, match=pattern(BUILTIN_NAME, name="mine")):
        import_model(tmp_path / "mine")


@pytest.mark.parametrize("name", ["../../evil", "/evil"])
def test_a_zip_with_other_paths_is_refused(saved, tmp_path, name, pattern):
    path = export_model(tmp_path / "mine", tmp_path / "mine.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "x")
    with pytest.raises(ModelFormatError, match=pattern(BAD_PATH, member=name)):
        import_model(path)
    assert not user_folder().exists() or not list(user_folder().iterdir())


def test_a_zip_with_corrupt_weights_leaves_nothing(saved, tmp_path, pattern):
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tmp_path / "mine" / "model.json", "mine/model.json")
        archive.writestr("mine/weights.safetensors", b"x")
    with pytest.raises(ModelFormatError, match=pattern(HASHES_DIFFER)):
        import_model(path)
    assert not list(user_folder().iterdir())


def test_a_name_cannot_leave_the_folder(saved, tmp_path, pattern):
    edit_card(tmp_path / "mine", name="../up")
    with pytest.raises(ModelFormatError, match=pattern(BAD_NAME, name="../up")):
        import_model(tmp_path / "mine")


def test_saving_over_a_model_keeps_the_old_one_if_it_fails(
    saved, tmp_path, monkeypatch
):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_store, "write_card", fail)
    with pytest.raises(OSError, match=REASONS[errno.ENOSPC]):
        save_model(tmp_path / "mine", network(), saved)
    monkeypatch.undo()
    assert load_model(tmp_path / "mine").card == saved


@pytest.mark.parametrize(
    "card",
    list_models([model_store.builtin_folder(), model_store.research_folder()]),
    ids=lambda c: c.name,
)
def test_the_built_in_models_load_and_answer(card):
    loaded = load_model(card.path)
    assert card.licence
    assert card.title
    mask = torch.zeros(1, 1, 64, 64, dtype=torch.int64)
    mask[..., 20:40, 20:40] = 1
    with torch.inference_mode():
        code = loaded.network.encode_prompts(torch.randn(1, 1, 3, 64, 64), mask)
        out = loaded.network(torch.randn(1, 3, 80, 72), code)["foreground"]
    assert np.isfinite(out.numpy()).all()


def test_a_built_in_model_is_found_without_a_look_at_other_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = []
    monkeypatch.setattr(model_store, "plugin_cards", lambda: looks.append(1) or [])
    assert find_model("svp").name == "svp"
    assert not looks
    with pytest.raises(ModelFormatError):
        find_model("no such model")
    assert looks
