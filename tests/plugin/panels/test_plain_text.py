"""Names of others on screen: no dock renders them as markup."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QTextDocument
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QLabel,
    QMenu,
    QTableView,
    QWidget,
)

import napari_svpseg.plugin
from napari_svpseg.core.annotation.image_tags import BankPatch
from napari_svpseg.core.geometry import Box
from napari_svpseg.core.jobs.folder_job import FileOutcome
from napari_svpseg.core.model_card import ModelCard
from napari_svpseg.io.training_set import Entry
from napari_svpseg.plugin.docks.batch_dock import BatchWidget
from napari_svpseg.plugin.docks.finetune_dock import FineTuneWidget
from napari_svpseg.plugin.docks.tags_dock import TagsWidget
from napari_svpseg.plugin.layers.images.tagged_image import TaggedImage
from napari_svpseg.plugin.panels.plain_text import (
    HtmlLabel,
    PlainLabel,
    button_text,
    shown,
    tip_text,
)
from napari_svpseg.plugin.panels.tags.patch_view import PatchItem
from napari_svpseg.plugin.services.engine_process import Engine

ROOT = Path(napari_svpseg.plugin.__file__).parent
EVIL = '<h1>cells</h1><a href="http://a.b">c</a><img src="d.png">\u202e & co'
SEEN = '<h1>cells</h1><a href="http://a.b">c</a><img src="d.png">\\u202e & co'
TIP = Qt.ItemDataRole.ToolTipRole


def rendered(text: str) -> str:
    """Return what is read of a tooltip; in a plain one that is the text itself."""
    document = QTextDocument()
    is_rich = "<" in text  # Qt looks for tags
    (document.setHtml if is_rich else document.setPlainText)(text)
    block = document.begin()
    while block.isValid():
        assert block.blockFormat().headingLevel() == 0
        parts = block.begin()
        while not parts.atEnd():
            form = parts.fragment().charFormat()
            assert not form.isAnchor() and not form.isImageFormat()
            parts += 1
        block = block.next()
    return document.toPlainText()


@pytest.mark.parametrize(
    "text", [EVIL, "<b>", "a\n<i>b  c", "a\nb", "", "a < b", "&lt;"]
)
def test_a_tooltip_is_its_text(qapp, text) -> None:
    assert rendered(tip_text(text)) == shown(text)


def test_a_label_shows_names_as_they_are(qapp) -> None:
    label = PlainLabel(EVIL)
    assert label.textFormat() == Qt.TextFormat.PlainText and label.text() == SEEN
    label.setText("a\nb\x1b")
    assert label.text() == "a\nb\\x1b"
    assert button_text("a & b\x07") == "a && b\\x07"


# ---------------------------------------------------------------- none is forgotten


def calls(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def is_constant(node: ast.expr) -> bool:
    """Return whether a text is written in the code, and is no markup."""
    if isinstance(node, ast.IfExp):
        return is_constant(node.body) and is_constant(node.orelse)
    return isinstance(node, ast.Constant) and "<" not in str(node.value)


def is_tip(node: ast.expr) -> bool:
    return is_constant(node) or ast.unparse(node).startswith("tip_text(")


def rich(tree: ast.AST) -> list[str]:
    """Return the parts of a module that may show names of others as markup."""
    found = []
    for node, name in calls(tree):
        last = name.rpartition(".")[2]
        is_bad = (
            last == "QLabel"
            or (last == "setToolTip" and not is_tip(node.args[0]))
            or (last == "setTextFormat" and "PlainText" not in ast.unparse(node))
            or (last == "addAction" and not _is_safe_action(node))
            or (
                last == "addRow"
                and len(node.args) == 2
                and isinstance(node.args[0], ast.Constant | ast.JoinedStr)
                and not is_constant(node.args[0])
            )
            or name.startswith(("QMessageBox.", "QToolTip.", "QInputDialog."))
        )
        if last == "setItemData" and "ToolTipRole" in ast.unparse(node):
            is_bad = not is_tip(node.args[1])
        if is_bad and not name.startswith("QMessageBox.Icon"):
            found.append(ast.unparse(node))
    for node in ast.walk(tree):  # what a model of a table returns
        if isinstance(node, ast.If) and "ToolTipRole" in ast.unparse(node.test):
            returned = [n for n in node.body if isinstance(n, ast.Return)]
            found += [ast.unparse(n) for n in returned if not is_tip(n.value)]
    return found


def _is_safe_action(node: ast.Call) -> bool:
    text = node.args[0]
    return is_constant(text) or ast.unparse(text).startswith("button_text(")


def test_no_widget_can_show_markup() -> None:
    for path in ROOT.rglob("*.py"):
        text = path.read_text("utf-8")
        if path.name == "plain_text.py":
            continue
        assert rich(ast.parse(text)) == [], path
        is_plain = "setTextFormat(Qt.TextFormat.PlainText)" in text
        assert "QMessageBox(" not in text or is_plain, path
        assert "(QLabel)" not in text, path


@pytest.mark.parametrize(
    "line",
    [
        "QLabel(name)",
        "label.setToolTip(name)",
        "label.setToolTip(f'{name}')",
        "box.setItemData(0, name, Qt.ItemDataRole.ToolTipRole)",
        "label.setTextFormat(Qt.TextFormat.AutoText)",
        "form.addRow(f'<b>{name}', box)",
        "menu.addAction(layer.name)",
        "QMessageBox.warning(self, name)",
        "if role == ToolTipRole:\n  return name",
    ],
)
def test_the_search_finds_markup(line) -> None:
    assert rich(ast.parse(f"def a():\n {line}"))


@pytest.mark.parametrize(
    "line",
    [
        "label.setToolTip(tip_text(name))",
        "label.setToolTip('Undo' if is_on else 'Do')",
        "form.addRow('Axes', box)",
        "form.addRow(PlainLabel(name), box)",
        "menu.addAction(button_text(name))",
        "box.setIcon(QMessageBox.Icon.Question)",
        "if role == ToolTipRole:\n  return tip_text(name)",
    ],
)
def test_the_search_passes_text(line) -> None:
    assert not rich(ast.parse(f"def a():\n {line}"))


# ---------------------------------------------------------------- in the window


def tips_of(widget: QWidget):
    """Yield all tooltips that a widget can show."""
    yield widget.toolTip()
    if not isinstance(widget, QAbstractItemView | QComboBox):
        return
    model = widget.model()
    if model is None:
        return
    n = model.columnCount() if isinstance(widget, QTableView) else 1
    for row in range(min(model.rowCount(), 20)):
        for column in range(n):
            yield model.index(row, column).data(TIP) or ""
    for column in range(n):
        yield model.headerData(column, Qt.Orientation.Horizontal, TIP) or ""


def check(dock: QWidget) -> str:
    """Assert that nothing in a dock renders markup; return all that is read in it."""
    read = []
    for widget in [dock, *dock.findChildren(QWidget)]:
        read += [rendered(tip) for tip in tips_of(widget)]
        if isinstance(widget, QLabel):
            is_safe = widget.textFormat() == Qt.TextFormat.PlainText
            if not is_safe and not isinstance(widget, HtmlLabel):
                assert "<" not in widget.text(), widget.text()
            read.append(widget.text() if is_safe else rendered(widget.text()))
        if isinstance(widget, QMenu):
            read += [action.text() for action in widget.actions()]
    return "\n".join(read)


def fill_batch(dock, folder):
    dock.files.set_paths([EVIL])
    dock.files.show([FileOutcome(EVIL, status="failed", error=EVIL, notes=(EVIL,))])
    dock.show_inputs(EVIL, EVIL)
    dock.show_prompts(EVIL)
    dock.add_log(EVIL)
    assert SEEN in dock.log.toPlainText()


def fill_finetune(dock, folder):
    entry = Entry(EVIL, folder, source=EVIL)
    dock.training_set.table.show_entries([entry])
    dock.form.use_unlabelled(str(folder / EVIL))
    dock.unfinished.offer(EVIL)
    dock.curves.add_point(EVIL, 1, 2.0)


def fill_tags(dock, folder):
    image = TaggedImage(EVIL, EVIL, folder / EVIL)
    dock.tags.show([image], {EVIL: [EVIL]}, [EVIL])
    dock.tag_panel.classes.refresh()
    dock.bank.view.show_bank([PatchItem(BankPatch(EVIL, 0, EVIL, Box(0, 0, 64)))], ())


@pytest.mark.parametrize(
    ("kind", "fill", "n"),
    [
        (BatchWidget, fill_batch, 5),
        (FineTuneWidget, fill_finetune, 6),
        (TagsWidget, fill_tags, 4),
    ],
)
def test_no_dock_renders_names(
    viewer, runner, qtbot, tmp_path, kind, fill, n, monkeypatch
):
    card = ModelCard(EVIL, "svp", title=EVIL, licence=EVIL)
    monkeypatch.setattr("napari_svpseg.io.model_store.list_models", lambda *_: [card])
    viewer.add_image(np.zeros((96, 110)), name=EVIL)
    dock = kind(viewer, Engine(lambda: runner))
    viewer.window.add_dock_widget(dock)
    fill(dock, tmp_path)
    dock.say(EVIL, True)
    assert check(dock).count(SEEN) >= n


def test_the_dock_of_prompts_renders_no_names(discs, open_dock, monkeypatch):
    card = ModelCard(EVIL, "svp", title=EVIL, licence=EVIL)
    dock = open_dock()
    monkeypatch.setattr("napari_svpseg.io.model_store.list_models", lambda *_: [card])
    dock.refresh_models()
    image = discs.layers["discs"]
    discs.add_image(np.zeros_like(image.data), name=f"{EVIL} 2")
    discs.layers["truth"].name = image.name = EVIL
    item = dock.book.place(dock.source_of(image), (), Box(14, 14, 32))
    dock.book.update(item.id, name=EVIL)
    dock.say(f"'{EVIL}' is read.")
    dock.show_device(EVIL)
    dock.last_session.offer(EVIL)
    read = check(dock)
    assert read.count(SEEN) >= 6 and SEEN.replace("&", "&&") in read
