"""The dock "Train from tags"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFrame,
    QLineEdit,
    QProgressBar,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from ...core.annotation.image_tags import (
    BankPatch,
    TagTrainingPreview,
    TagTrainingProgress,
    TagTrainingResult,
    TagTrainingSettings,
)
from ...core.prompt import PromptSet
from ...workflows.segment_image import segment
from ...workflows.tag_training import (
    discard_tag_training,
    find_patch_bank,
    stop_tag_training,
    train_from_tags,
)
from ..layers.class_colors import class_color
from ..layers.image_preview import ShownImage, drop_overlay, show_overlay
from ..panels.controls import (
    Section,
    SettingsForm,
    button,
    combo,
    count,
    heading,
    labelled,
    note,
    sentence,
    side_by_side,
    theme_color,
)
from ..panels.curves import Curves
from ..panels.model_picker import DEFAULT
from ..panels.patch_bank_panel import BankBox
from ..panels.tag_panel import TagPanel
from ..panels.tag_table import Picture
from ..services.background import Background
from ..services.engine_process import Engine, EngineJob, shared_engine
from ..services.preferences import preference
from .tabs import share_tabs

if TYPE_CHECKING:
    import napari

    from ...io.tag_files import Tags


STAGES = {
    "reading": "Reading images",
    "bank": "Filling the bank",
    "first stage": "Learning where the classes are",
    "pseudo masks": "Drawing masks",
    "second stage": "Training on the masks",
    "saving": "Saving",
}
TOLD, AGREED = "tags told right", "agreement with the masks"


class TagsWidget(QWidget):
    """Train a model from tags that say which image holds what.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    engine : Engine, optional
        Where models run; by default this napari's own.
    """

    def __init__(
        self, napari_viewer: napari.viewer.Viewer, engine: Engine | None = None
    ) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.engine = engine or shared_engine()
        self.engine.acquire()
        self.tags = TagPanel(napari_viewer)
        self.shown = ShownImage(napari_viewer, lambda text: self.say(text, True))
        self.bank = BankBox()
        self.curves = Curves(scores=(TOLD, AGREED), x_name="seconds")
        self._files = Background(1)
        self._job: EngineJob | None = None
        self._look_job: EngineJob | None = None
        self._unfinished: tuple[Any, ...] | None = None
        self._stage = ""
        self._build()
        self._connect()
        self._leave = _Leave(self)
        self.destroyed.connect(partial(_Leave.__call__, self._leave))
        self._on_tags()
        share_tabs(self)

    def changeEvent(self, event: QEvent | None) -> None:
        """Let go of the viewer when the dock is closed; the training ends."""
        super().changeEvent(event)
        if (
            event is not None
            and event.type() == QEvent.Type.ParentChange
            and self.parentWidget() is None
        ):
            self.cancel()
            self._leave()

    # ------------------------------------------------------------ what it says

    def settings(self) -> TagTrainingSettings:
        """Return the settings of a training."""
        minutes = self.minutes.value()
        return TagTrainingSettings(
            **self.options.values(),
            **self.advanced.values(),
            classes=self.tags.classes,
            minutes=minutes or None,
        )

    def say(self, text: str, error: bool = False) -> None:
        """Show a message at the bottom of the dock."""
        self.message.setStyleSheet(
            f"background: {theme_color(self.viewer.theme, 'error')}; color: white;"
            " padding: 4px; border-radius: 3px;"
            if error
            else ""
        )
        self.message.setText(text)

    # ------------------------------------------------------------ layout

    def _build(self) -> None:
        body = QWidget()
        column = QVBoxLayout(body)
        column.setContentsMargins(6, 0, 6, 6)
        column.setSpacing(4)
        column.addWidget(heading("Which image holds what"))
        column.addWidget(self.tags)
        self.show_marked = QCheckBox("Show the marked image")
        self.show_marked.setToolTip("Bring the marked image onto the canvas")
        self.show_marked.setChecked(True)
        column.addWidget(self.show_marked)
        self.curves.hide()
        column.addWidget(self.curves)
        column.addWidget(heading("Image bank"))
        column.addWidget(self.bank)
        self._build_sections(column)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(body)
        self.scroll = scroll
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 4)
        layout.addWidget(scroll, 1)
        layout.addWidget(self._build_footer())
        self.setMinimumWidth(320)

    def _build_sections(self, column: QVBoxLayout) -> None:
        training = Section("Training options")
        self.options = SettingsForm(
            TagTrainingSettings,
            {
                "variant": "Method",
                "epochs": "Passes",
                "second_stage": "Second stage",
                "second_epochs": "Passes of it",
                "n_prototypes": "Looks of a class",
                "n_patches": "Patches of a look",
            },
        )
        self.minutes = QDoubleSpinBox()
        self.minutes.setRange(0, 10_000)
        self.minutes.setDecimals(1)
        self.minutes.setSuffix(" min")
        self.minutes.setSpecialValueText("none")
        self.minutes.setToolTip("Time after which the best so far is kept")
        training.form.addRow(self.options)
        training.form.addRow("Time limit", self.minutes)
        advanced = Section("Advanced")
        self.device = combo("Where it trains; auto takes a GPU if there is one")
        self.device.addItems(("auto", "cpu", "cuda", "mps"))
        self.device.setEditable(True)
        self.device.setCurrentText(str(preference("device")))
        self.advanced = SettingsForm(
            TagTrainingSettings,
            {
                "window": "Window",
                "scale": "Scale",
                "intensities": "Brightness of",
                "batch": "Windows at once",
            },
        )
        advanced.form.addRow("Device", self.device)
        advanced.form.addRow(self.advanced)
        self.sections = {"training": training, "advanced": advanced}
        for section in self.sections.values():
            column.addWidget(section)

    def _build_footer(self) -> QWidget:
        footer = QWidget()
        column = QVBoxLayout(footer)
        column.setContentsMargins(6, 4, 6, 0)
        column.setSpacing(4)
        self.name = QLineEdit("from tags")
        self.name.setToolTip("Name under which the model is listed in other docks")
        self.train = button("Train", "Train a model from the tags")
        self.look = button(
            "Show map", "Show what the model finds in the marked image, class by class"
        )
        self.use = button(
            "Use model", "Segment images with this model, in Segment from prompts"
        )
        self.stop = button("Stop and keep", "End now and keep the best so far")
        self.drop = button("Cancel", "End now and keep nothing")
        self.progress = QProgressBar()
        self.progress.setRange(0, 100)
        self._progress_row = QWidget()
        progress = QVBoxLayout(self._progress_row)
        progress.setContentsMargins(0, 0, 0, 0)
        progress.setSpacing(4)
        progress.addWidget(self.progress)
        progress.addWidget(side_by_side(self.stop, self.drop, stretch=(2, 1)))
        self._progress_row.hide()
        self.message = note()
        self.message.setMinimumHeight(36)
        self.message.setAlignment(Qt.AlignmentFlag.AlignTop)
        self._name_row = labelled("Model", self.name)
        column.addWidget(self._name_row)
        column.addWidget(
            side_by_side(self.train, self.look, self.use, stretch=(2, 1, 1))
        )
        column.addWidget(self._progress_row)
        column.addWidget(self.message)
        return footer

    def _connect(self) -> None:
        self.tags.changed.connect(self._on_tags)
        self.tags.marked.connect(self._on_marked)
        self.tags.message.connect(self.say)
        self.bank.message.connect(self.say)
        self.bank.asked.connect(self.find_patch_bank)
        self.bank.opened.connect(self._on_opened)
        self.bank.used.connect(self._on_used)
        self.show_marked.toggled.connect(self._on_show_marked)
        self.train.clicked.connect(self.start)
        self.stop.clicked.connect(self.stop_and_keep)
        self.drop.clicked.connect(self.cancel)
        self.look.clicked.connect(self.look_at_marked)
        self.use.clicked.connect(self.use_model)

    def _show_state(self) -> None:
        """Enable what makes sense now."""
        busy = self._job is not None
        self.train.setEnabled(not busy and bool(self.tags.table.pictures))
        self._progress_row.setVisible(busy)
        self.name.setEnabled(not busy)
        has_model = self.result is not None
        self.use.setEnabled(has_model and not busy)
        self.look.setEnabled(
            has_model
            and not busy
            and self._look_job is None
            and self._marked() is not None
        )
        self.bank.follow(
            self.tags.classes, busy=busy, can_find=bool(self.tags.table.pictures)
        )

    # ------------------------------------------------------------ tags

    def _on_tags(self) -> None:
        if self._job is None and self.result is None:
            self.say(self.tags.problem() or self.tags.remark() or "Press Train.")
        self._show_state()

    def _marked(self) -> Picture | None:
        rows = self.tags.view.marked_rows()
        return self.tags.table.pictures[rows[0]] if rows else None

    def _on_marked(self, picture: Picture) -> None:
        if self.show_marked.isChecked():
            self.shown.show(picture)
        self._show_state()

    def _on_show_marked(self, on: bool) -> None:
        picture = self._marked()
        if on and picture is not None:
            self.shown.show(picture)

    # ------------------------------------------------------------ training

    def start(self) -> None:
        """Train with the tags that there are."""
        name = " ".join(self.name.text().split())
        if not name or set(name) & set('/\\:*?"<>|') or name.startswith("."):
            self.say("Give the model a name of letters and numbers.", True)
            return
        call = self._call()
        if call is None:
            return
        from ...io.model_store import user_folder

        pictures, tags, settings = call
        bank = self.bank.patches()
        goes_on = self._unfinished is not None and self._unfinished[1:] == (
            name, tags, settings, bank,
        )  # fmt: skip
        if self._unfinished is not None and goes_on:
            output = self._unfinished[0]
        else:
            output = free_folder(user_folder() / name)
        self._unfinished = (output, name, tags, settings, bank)
        self.curves.clear()
        self.curves.show()
        self.bank.clear_model()
        drop_overlay(self.viewer)
        self.say(
            f"{'Going on' if goes_on else 'Training'} with "
            f"{count(len(pictures), 'image')}…"
        )
        job = self._submit(
            train_from_tags,
            pictures,
            tags,
            settings=settings,
            output=str(output),
            device=self.device.currentText(),
            bank=bank,
            resume=goes_on,
        )
        job.partial.connect(self._on_partial)
        job.failed.connect(self._on_fit_failed)
        job.returned.connect(self._on_result)
        job.cancelled.connect(self._on_cancelled)

    def find_patch_bank(self) -> None:
        """Fill the bank without training, to look through it first."""
        call = self._call()
        if call is None:
            return
        pictures, tags, settings = call
        self.say("Looking for patches that show each class…")
        device = self.device.currentText()
        job = self._submit(
            find_patch_bank, pictures, tags, settings=settings, device=device
        )
        job.failed.connect(self._on_failed)
        job.returned.connect(self._on_found)
        job.cancelled.connect(lambda: self.say("Stopped."))

    def _call(self) -> tuple[list[Picture], Tags, TagTrainingSettings] | None:
        """Return the images, their tags and the settings; None where it is said why."""
        problem = self.tags.problem()
        if problem:
            self.say(problem, True)
            return None
        from ...io.tag_files import Tags

        tagged = self.tags.tagged()
        try:
            settings = self.settings()
        except ValueError as error:
            self.say(sentence(error), True)
            return None
        tags = Tags({p.key: of for p, of in tagged}, self.tags.classes)
        return [p for p, _ in tagged], tags, settings

    def _submit(
        self,
        function: Callable[..., Any],
        pictures: list[Picture],
        tags: Tags,
        **kwargs: Any,
    ) -> EngineJob:
        """Start a job; open images are read in a thread."""

        def prepare() -> Any:
            return ({p.key: image_of(p) for p in pictures}, tags), kwargs

        self._stage = ""
        self.progress.setRange(0, 0)
        self.progress.setFormat("")
        self.stop.setVisible(function is train_from_tags)
        self.stop.setEnabled(True)
        self.drop.setEnabled(True)
        job = self.engine.submit_prepared(function, prepare)
        self._job = job
        job.progressed.connect(self._on_progress)
        job.finished.connect(self._on_finished)
        self._show_state()
        return job

    def stop_and_keep(self) -> None:
        """End the training; the best so far becomes the model."""
        if self._job is None or self._unfinished is None:
            return
        output = self._unfinished[0]
        self.stop.setEnabled(False)
        self.progress.setFormat("Stopping, the best so far is kept…")

        self._files.call(
            lambda: stop_tag_training(output),
            lambda _: None,
            lambda error: self.say(sentence(error), True),
        )

    def cancel(self) -> None:
        """End the training and keep nothing."""
        for job in (self._job, self._look_job):
            if job is not None:
                job.cancel()
        if self._job is not None:
            self.stop.setEnabled(False)
            self.drop.setEnabled(False)
            self.progress.setFormat("Stopping…")

    def _on_progress(self, done: int, total: int, text: str) -> None:
        self.progress.setRange(0, max(total, 1))
        self.progress.setValue(done)
        if self.stop.isEnabled():
            self.progress.setFormat(text or "%p %")

    def _on_partial(self, value: Any) -> None:
        """Show how far it is, and what the network sees in the marked image."""
        if isinstance(value, TagTrainingProgress):
            self._show_progress(value)
        elif isinstance(value, TagTrainingPreview):
            picture = self._marked()
            if picture is not None and picture.key == value.image:
                self._show_overlay(picture, value.classes, value.foreground / 255)
        elif isinstance(value, list | tuple):
            self._on_found(value)

    def _show_progress(self, value: TagTrainingProgress) -> None:
        if value.stage != self._stage:
            self._stage = value.stage
            self.say(f"{STAGES.get(value.stage, value.stage)}…")
        is_second = value.stage == "second stage"
        if "total" in value.losses:
            series = "loss, second stage" if is_second else "loss"
            self.curves.add_point(series, value.seconds, value.losses["total"])
        series = AGREED if is_second else TOLD
        known = self.curves.points.get(series, ([], [None]))[1][-1]
        if value.validation is not None and value.validation != known:
            self.curves.add_point(series, value.seconds, value.validation)

    def _on_found(self, patches: Sequence[BankPatch]) -> None:
        """Show a bank that has no masks yet."""
        self.bank.show_found(patches, {p.key: p for p, _ in self.tags.tagged()})
        if self._job is not None and self._job.function is find_patch_bank:
            self.say("Remove patches that show the wrong thing, then press Train.")

    def _on_result(self, result: TagTrainingResult) -> None:
        self._unfinished = None
        text = f"Trained in {duration(result.seconds)}. "
        text += f"'{Path(result.model).name}' is now among the models."
        notes = "; ".join(result.notes)
        self.say(f"{text} ({notes})" if notes else text)
        self.bank.load(result)
        self.bank.list_models()
        for dock in segment_docks(self.viewer):
            dock.refresh_models()

    def _on_failed(self, text: str) -> None:
        self.say(text, True)

    def _on_fit_failed(self, text: str) -> None:
        """Tell why, and whether something is left to go on from."""
        from ...workflows.tag_training import training_folder

        assert self._unfinished is not None
        if any(training_folder(self._unfinished[0]).glob("*")):
            text += " Press Train to go on from where it was."
        self.say(text, True)

    def _on_cancelled(self) -> None:
        """Leave nothing of a training that was cancelled."""
        self.say("Cancelled: no model was made. The tags are kept.")
        if self._unfinished is None:
            return
        output, self._unfinished = self._unfinished[0], None

        self._files.call(lambda: discard_tag_training(output), lambda _: None)

    def _on_finished(self) -> None:
        self._job = None
        self._show_state()

    # ------------------------------------------------------------ bank

    @property
    def result(self) -> TagTrainingResult | None:
        """The model that was trained or opened last."""
        return self.bank.result

    def _on_opened(self, result: TagTrainingResult) -> None:
        self.say(f"This is the bank of '{Path(result.model).name}'.")
        self._show_state()

    def _on_used(self, prompts: PromptSet) -> None:
        """Add patches to the prompts of the Segment dock."""
        from ..manifest import show_dock

        dock = show_dock(self.viewer)
        dock.book.add_loaded(prompts)
        if dock.models.knows_classes:
            dock.refresh_models(DEFAULT)
        dock.say("Press Preview to try the new prompt on what you see.")
        names = ", ".join(f"'{p.name}'" for p in prompts)
        self.say(f"{names} is now a prompt: press Run in Segment from prompts.")

    # ------------------------------------------------------------ using the model

    def look_at_marked(self) -> None:
        """Show what the model finds in the marked image."""
        picture = self._marked()
        if picture is None or self.result is None:
            return
        if self.shown.layer_of(picture) is None:
            self.shown.show(picture)
        try:
            image = image_of(picture)
        except ValueError as error:
            self.say(sentence(error), True)
            return
        self.say(f"Looking at '{picture.title}'…")
        model, device = self.result.model, self.device.currentText()

        def prepare() -> Any:
            from ...io.images import read_image

            kwargs = {"model": model, "device": device, "labels": "classes"}
            if not isinstance(image, str):
                return (image, None), {**kwargs, "axes": "YXC"}
            file = read_image(image)
            axes, rgb = file.axes.order, file.rgb or None
            return (file.array, None), {**kwargs, "axes": axes, "rgb": rgb}

        job = self.engine.submit_prepared(segment, prepare)
        self._look_job = job
        job.returned.connect(lambda result: self._on_looked(picture, result))
        job.failed.connect(self._on_failed)
        job.finished.connect(self._on_look_finished)
        self._show_state()

    def _on_looked(self, picture: Picture, result: Any) -> None:
        maps = result.maps
        self._show_overlay(picture, maps.classes, maps.foreground)
        names = list(result.classes)
        values, n = np.unique(result.labels[result.labels > 0], return_counts=True)
        parts = [
            f"{names[v - 1]} {100 * k / result.labels.size:.0f} %"
            for v, k in zip(values.tolist(), n.tolist(), strict=True)
        ]
        self.say(f"'{picture.title}': {', '.join(parts) or 'none of the classes'}.")

    def _on_look_finished(self) -> None:
        self._look_job = None
        self._show_state()

    def _show_overlay(
        self, picture: Picture, classes: np.ndarray, foreground: np.ndarray
    ) -> None:
        layer = self.shown.layer_of(picture)
        if layer is None:
            return
        colors = {i + 1: class_color(i) for i in range(len(self.tags.classes))}
        show_overlay(self.viewer, layer, classes, foreground, colors)

    def use_model(self) -> None:
        """Open the Segment dock with the model chosen."""
        if self.result is None:
            return
        from ..manifest import show_dock

        dock = show_dock(self.viewer)
        dock.refresh_models(Path(self.result.model).name)
        self.say("The model is chosen in Segment from prompts: press Run there.")


class _Leave:
    """What is left to do, once, when the dock is closed or gone."""

    def __init__(self, dock: TagsWidget) -> None:
        self._parts = dock.tags, dock.bank, dock.shown, dock._files, dock.engine
        self.is_done = False

    def __call__(self, *_: object) -> None:
        if self.is_done:
            return
        self.is_done = True
        tags, bank, shown, files, engine = self._parts
        tags.close_hooks()
        bank.close_files()
        shown.close()
        files.close()
        engine.release()


def segment_docks(viewer: Any) -> list[Any]:
    """Return the docks "Segment from prompts" of a viewer."""
    from .segment_dock import SegmentWidget

    bare = getattr(viewer, "__wrapped__", viewer)
    return [
        d
        for d in SegmentWidget.docks()
        if getattr(d.viewer, "__wrapped__", d.viewer) is bare
    ]


def free_folder(folder: Path) -> Path:
    """Return a folder's name, with a number where there is one already."""
    n, free = 2, folder
    while free.exists():
        free = folder.with_name(f"{folder.name} {n}")
        n += 1
    return free


def image_of(picture: Picture) -> str | np.ndarray:
    """Return an image as the engine takes it: its file, or the open data."""
    return str(picture.path) if picture.path is not None else picture.plane()


def duration(seconds: float) -> str:
    """Return a time as it is said.

    Examples
    --------
    >>> duration(12.3), duration(400)
    ('12 s', '6.7 min')
    """
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
