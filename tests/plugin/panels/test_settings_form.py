"""The form of options shows what the settings declare."""

from __future__ import annotations

from dataclasses import dataclass, fields

import pytest

from napari_svpseg.core.annotation.image_tags import TagTrainingSettings
from napari_svpseg.core.jobs.finetune_job import FineTuneSettings
from napari_svpseg.core.settings import (
    PostprocessSettings,
    SegmentSettings,
    Settings,
    option,
)
from napari_svpseg.plugin.panels.settings_form import SettingsForm


@dataclass(frozen=True)
class Example(Settings):
    share: float = option(0.25, "A share", label="Share", low=0.0, high=1.0)
    rate: float = option(1e-3, "A rate", low=0, high=1)
    seconds: float = option(45.0, "A time", low=1, high=1e6, unit="s")
    side: int = option(512, "A side", low=64, high=8192, unit="pixel")
    area: int = option(-1, "An area", low=-1, high=100, unit="pixel")
    seed: int = option(0, "A seed", low=0, high=2**31 - 1)
    split: bool = option(True, "Whether to split", label="Split it")
    kind: str = option("seed", "A kind", choices=("published", "seed", "other"))


@pytest.fixture
def form(qtbot):
    made = SettingsForm(Example)
    qtbot.addWidget(made)
    return made


def test_controls_show_label_tooltip_unit_and_range(form):
    assert form.values() == Example().to_dict()
    assert form._form.labelForField(form.control("share")).text() == "Share"
    assert form._form.labelForField(form.control("seed")).text() == "seed"
    assert form.control("split").text() == "Split it"
    for field in fields(Example):
        assert form.control(field.name).toolTip() == field.metadata["help"]
    assert form.control("side").text() == "512 px"
    assert form.control("seconds").text() == "45 s"
    assert form.control("area").text() == "auto"
    assert form.control("rate").value() == 1e-3
    assert [form.control("kind").itemText(i) for i in range(3)] == [
        "Fixed", "Learned", "Other",
    ]  # fmt: skip


def test_values_go_in_and_out_with_their_types(form):
    values = {
        "share": 0.35, "rate": 0.0005, "seconds": 90.0, "side": 128, "area": 9,
        "seed": 7, "split": False, "kind": "published",
    }  # fmt: skip
    form.set_values({**values, "unknown": 1})
    assert form.values() == values
    assert {k: type(v) for k, v in form.values().items()} == {
        k: type(v) for k, v in values.items()
    }
    Example(**form.values())  # what the form returns is accepted


def test_values_out_of_range_of_an_older_session_are_clamped(form):
    form.set_values({"side": 9, "share": 7.0, "kind": None})
    assert form.values()["side"] == 64 and form.values()["share"] == 1.0
    assert form.values()["kind"] == "published"


@pytest.mark.parametrize("name", [f.name for f in fields(Example)])
def test_every_control_tells_of_its_change(form, name, qtbot):
    changes = {"split": False, "kind": "other", "share": 0.5, "rate": 0.5}
    with qtbot.waitSignal(form.changed):
        form.set_values({name: changes.get(name, 99)})
    with qtbot.assertNotEmitted(form.changed):
        form.set_values(form.values())


def test_rows_are_hidden_with_their_labels(form):
    form.show()
    label = form._form.labelForField(form.control("share"))
    form.show_rows(["share"], False)
    assert not form.control("share").isVisible() and not label.isVisible()
    form.show_rows(["share"], True)
    assert form.control("share").isVisible() and label.isVisible()


@pytest.mark.parametrize(
    "kind",
    [PostprocessSettings, SegmentSettings, FineTuneSettings, TagTrainingSettings],
)
def test_every_declared_option_can_be_shown(kind, qtbot):
    names = [
        f.name for f in fields(kind)
        if isinstance(f.default, bool | int | float) or f.metadata["choices"]
    ]  # fmt: skip
    form = SettingsForm(kind, names)
    qtbot.addWidget(form)
    assert form.minimumSizeHint().width() <= 308
    kind(**form.values())
