"""Base of the docks: what all four share, from the first heading to closing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QKeySequence, QShortcut, QShowEvent
from qtpy.QtWidgets import (
    QAbstractButton,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from ...core.settings import DEVICES
from ..callbacks import guarded
from ..layers.alignment import Alignment
from ..layers.labels.stroke_history import StrokeHistory
from ..messages import STOPPING
from ..panels.accessibility import ControlKeeper
from ..panels.body_area import BodyArea
from ..panels.controls import (
    ElidedCombo,
    Section,
    button,
    combo,
    font_size,
    heading,
    set_style,
)
from ..panels.plain_text import tip_text
from ..panels.session_panel import SessionPanel
from ..services.activity import Activity
from ..services.autosave import Autosave
from ..services.dropped_files import DroppedFiles
from ..services.engine_process import Engine, shared_engine
from ..services.preferences import preference
from .actions import (
    KEYS,
    Target,
    add_to_layer_list,
    bind_keys,
    key_text,
    release_keys,
)
from .controller import DockController
from .footer import Footer, ProgressRow
from .tabs import share_tabs

if TYPE_CHECKING:
    import napari

    from ..layers.prompts.prompt_book import PromptBook

logger = logging.getLogger(__name__)

Controller = TypeVar("Controller", bound=DockController)

MIN_WIDTH = 320
"""Of a dock, in pixels; it is wider where its contents need more."""
WITHOUT_SIZE = "QLineEdit, QAbstractItemView, QHeaderView, QPlainTextEdit"
NOT_NOW = "'{}' is not possible now."


class Dock(QWidget):
    """A scrolling body with sections above a footer, and a share in the engine.

    A dock fills itself in this order: `add_heading`, `add`, `add_section` and the
    `footer`; then it connects its signals. What must be let go of at the end goes to
    `at_close`; what runs is ended by `end_work`.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    engine : Engine, optional
        Where models run; by default this napari's own.
    stop_buttons : tuple of QPushButton
        Buttons beside the progress bar, *Stop* first; by default one.

    Attributes
    ----------
    keeper : ControlKeeper
    footer : Footer
    message : MessageLine
    progress : QProgressBar
    stop : QPushButton
    sections : dict of str to Section
    commands : dict of str to (QAbstractButton or callable)
        What commands do in this dock, see `bind`.
    apart : list of QWidget
        Parts that lie in docks of their own; keys work in them, too.
    """

    title: ClassVar[str]
    """Name of the dock in the manifest, the menus and on its tab."""
    controller: DockController
    """Decides what the dock does; the subclass makes and attaches it."""

    def __init__(
        self,
        napari_viewer: napari.viewer.Viewer,
        engine: Engine | None = None,
        *,
        stop_buttons: tuple[QPushButton, ...] = (),
    ) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.engine = engine or shared_engine()
        self.engine.acquire()
        self.sections: dict[str, Section] = {}
        self.commands: dict[str, Target] = {}
        self.apart: list[QWidget] = []
        stops = stop_buttons or (button("Stop", "Stop; what is finished is kept"),)
        self.progress_row = ProgressRow(*stops)
        self.activity = Activity(self.title)
        self.progress, self.stop = self.progress_row.bar, stops[0]
        self.footer = Footer(self.progress_row, lambda: str(napari_viewer.theme))
        self.message = self.footer.message
        self._lay_out()
        self.keeper = ControlKeeper(self)
        self._closing = Closing(self.engine.release)
        self._closing.add(Alignment(napari_viewer).close)
        bind_keys(napari_viewer)
        add_to_layer_list()
        self._closing.add(partial(release_keys, napari_viewer))
        self._closing.add(self.activity.close)
        self._closing.add(StrokeHistory(napari_viewer).close)
        DroppedFiles(self)  # a child of this widget
        # not a bound method: the dock is gone by then
        self.destroyed.connect(partial(Closing.__call__, self._closing))
        share_tabs(self)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Give fields and lists the font size of napari, whose style has none."""
        super().showEvent(event)
        style = f"{WITHOUT_SIZE} {{font-size: {font_size()};}}"
        set_style(self, style)

    def _lay_out(self) -> None:
        body = QWidget()
        self._body = QVBoxLayout(body)
        self._body.setContentsMargins(6, 3, 6, 6)
        self._body.setSpacing(4)
        self._body.addStretch(1)
        self.scroll_area = BodyArea(body, MIN_WIDTH)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 4)
        layout.addWidget(self.scroll_area, 1)
        layout.addWidget(self.footer)

    # ------------------------------------------------------------ filling it

    def add(self, *widgets: QWidget, stretch: int = 0) -> None:
        """Add widgets at the end of the body, below each other."""
        for widget in widgets:
            self._body.insertWidget(self._body.count() - 1, widget, stretch)

    def add_heading(self, text: str) -> None:
        """Add the title of a part of the body."""
        self.add(heading(text))

    def add_section(self, key: str, title: str, *rows: QWidget) -> Section:
        """Add a part of the body that folds away, and return it."""
        section = self.sections[key] = Section(title)
        for row in rows:
            section.form.addRow(row)
        self.add(section)
        return section

    def keep_choices(self, name: str, book: PromptBook | None = None) -> None:
        """Save what `choices` returns, and offer it to `restore_choices` after a crash.

        The bar that offers it is added to the body.

        Parameters
        ----------
        name : str
            Key of the dock in a saved session.
        book : PromptBook, optional
            Its prompts are saved too.
        """
        self.autosave = Autosave.of(self.viewer)
        self.last_session = self.autosave.attach(
            name, self.choices, self.restore_choices, book
        )
        self.autosave.message.connect(self.say)
        self.add(self.last_session)

    def add_sessions(self) -> None:
        """Add the part that saves the whole work as one file, and opens one."""
        self.session_panel = SessionPanel(self.viewer)
        self.session_panel.message.connect(self.say)
        self.add_section("session", "Session", self.session_panel)
        self.at_close(self.session_panel.close_files)

    def choices(self) -> dict[str, Any]:
        """Return the values of the controls, for the next session."""
        return {}

    def restore_choices(self, values: dict[str, Any]) -> None:
        """Show the values that `choices` returned in the last session."""

    def attach(self, controller: Controller) -> Controller:
        """Return the controller, which calls nobody once the dock is destroyed."""
        self.destroyed.connect(partial(DockController.detach, controller))
        return controller

    # ------------------------------------------------------------ commands

    def bind(self, **targets: Target) -> None:
        """Let commands and keys press buttons, whose tooltips show the key.

        Parameters
        ----------
        **targets : QAbstractButton or callable
            By the name of the command, see `actions.KEYS`.
        """
        self.commands |= targets
        if not preference("shortcuts"):
            return
        for name, target in targets.items():
            key = key_text(KEYS[name])
            if isinstance(target, QAbstractButton):
                target.setToolTip(tip_text(f"{target.toolTip()} ({key})"))
            # a key that a focused control would take does not reach the viewer
            for part in (self, *self.apart):
                shortcut = QShortcut(QKeySequence(key), part)
                shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
                shortcut.activated.connect(guarded(self, partial(self.perform, name)))

    def tell_keys(self, widget: QWidget, **told: str) -> None:
        """Add to a tooltip the keys of commands that no button of their own tells.

        Parameters
        ----------
        widget : QWidget
        **told : str
            What each key does, by the name of the command.
        """
        if preference("shortcuts"):
            keys = ", ".join(f"{key_text(KEYS[k])}: {t}" for k, t in told.items())
            widget.setToolTip(tip_text(f"{widget.toolTip()} ({keys})"))

    def perform(self, name: str) -> None:
        """Do what a command stands for, if it is possible now."""
        target = self.commands[name]
        if not isinstance(target, QAbstractButton):
            target()
        elif target.isEnabled() and target.isVisibleTo(self):
            target.click()
        else:
            self.say(NOT_NOW.format(target.text()))

    # ------------------------------------------------------------ telling the user

    def say(self, text: str, error: bool = False) -> None:
        """Show a message in the footer."""
        self.message.say(text, error)

    def show_busy(self, busy: bool) -> None:
        """Show the row of the progress while something runs."""
        if busy:
            self.progress_row.begin()
            self.activity.begin()
        else:
            self.progress_row.end()
            self.activity.end()

    def show_progress(self, done: int, total: int, text: str = "") -> None:
        """Show how far it is."""
        self.progress_row.show_progress(done, total, text)
        self.activity.show(done, total, text)

    def show_stopping(self) -> None:
        """Show that what runs was asked to stop."""
        self.progress_row.show_stopping()
        self.activity.say(STOPPING)

    # ------------------------------------------------------------ closing

    @property
    def is_busy(self) -> bool:
        """Whether something runs."""
        return self.controller.is_busy

    @property
    def is_open(self) -> bool:
        """Whether the dock has not been closed."""
        return not self._closing.is_done

    def at_close(self, *steps: Callable[[], object]) -> None:
        """Call these once, in order, when the dock is closed or destroyed."""
        self._closing.add(*steps)

    def end_work(self) -> None:
        """End what runs, because the dock is being closed."""
        self.controller.cancel()

    def changeEvent(self, event: QEvent | None) -> None:
        """End the work and let go of the viewer when the dock is closed.

        napari only takes a closed dock's widget out of the window; it lives on.
        """
        super().changeEvent(event)
        if event is None or event.type() != QEvent.Type.ParentChange:
            return
        if self.parentWidget() is None:
            self.end_work()
            self._closing()


class Closing:
    """The steps that let go of viewer and engine; they are taken once.

    Parameters
    ----------
    last : callable
        The step after all others.
    """

    def __init__(self, last: Callable[[], object]) -> None:
        self._steps: list[Callable[[], object]] = []
        self._last = last
        self.is_done = False

    def add(self, *steps: Callable[[], object]) -> None:
        """Take these steps too."""
        self._steps += steps

    def __call__(self, *_: object) -> None:
        """Take all steps, unless they were taken before."""
        if self.is_done:
            return
        self.is_done = True
        for step in (*self._steps, self._last):
            try:
                step()
            except Exception:  # the others let go all the same
                logger.exception("a dock could not be closed properly")


def device_combo(tip: str) -> ElidedCombo:
    """Return the choice of a device; it begins at the user's preference."""
    made = combo(tip)
    made.addItems(DEVICES)
    made.setEditable(True)  # "cuda:1" is no entry of the list
    made.setCurrentText(str(preference("device")))
    return made
