"""The keys and clicks of the table of tags."""

from __future__ import annotations

from qtpy.QtCore import Qt


def test_digits_toggle_and_enter_goes_on(view, press):
    press(view, "1\n2\n12\n")
    assert view.table.tags.rows() == {
        "0.png": ("a",),
        "1.png": ("b",),
        "2.png": ("a", "b"),
    }
    assert view.selected_rows() == [3]
    press(view, "11")
    assert "3.png" not in view.table.tags.rows()


def test_clearing_and_taking_back(view, qtbot, press):
    press(view, "12")
    qtbot.keyClick(view, Qt.Key.Key_Backspace)
    assert view.table.tags.rows() == {}
    qtbot.keyClick(view, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert view.table.tags.rows() == {"0.png": ("a", "b")}
    for _ in range(3):  # one more than there is to take back
        qtbot.keyClick(view, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert view.table.tags.rows() == {}


def test_zero_says_none_of_the_classes(view, press):
    press(view, "10\n")
    assert view.table.tags.rows() == {"0.png": ()}
    assert view.table.tags.n_tagged() == 1 and view.table.tags.next_untagged(-1) == 1
    view.select(0)
    press(view, "22")  # a class that is taken away leaves an image unknown
    assert view.table.tags.rows() == {}


def test_shift_enter_goes_back(view, qtbot, press):
    press(view, "\n\n")
    qtbot.keyClick(view, Qt.Key.Key_Return, Qt.KeyboardModifier.ShiftModifier)
    assert view.selected_rows() == [1]


def test_several_rows_get_a_class_together(view, press):
    view.table.tags.toggle([1], 0)
    view.selectAll()
    press(view, "1")
    assert all(of == ("a",) for of in view.table.tags.rows().values())
    assert len(view.table.tags.rows()) == 6
    press(view, "1")  # all have it: now none
    assert view.table.tags.rows() == {}


def test_a_digit_without_a_class_does_nothing(view, press):
    press(view, "39")
    assert view.table.tags.rows() == {}


def test_enter_after_the_last_row_says_so(view, qtbot, press):
    view.select(5)
    with qtbot.waitSignal(view.last_passed):
        press(view, "\n")
    assert view.selected_rows() == [5]


def test_a_click_on_a_box_toggles_the_class(view, qtbot):
    view.resize(300, 300)
    view.show()
    cell = view.visualRect(view.table.index(2, 2)).center()
    qtbot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=cell)
    assert view.table.tags.rows() == {"2.png": ("b",)}
    name = view.visualRect(view.table.index(3, 0)).center()
    qtbot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=name)
    assert view.table.tags.rows() == {"2.png": ("b",)} and view.selected_rows() == [3]


def test_a_new_class_leaves_the_selected_row(view, press):
    view.select(4)
    view.table.tags.add_class("third")
    press(view, "3")
    assert view.table.tags.rows() == {"4.png": ("third",)}
