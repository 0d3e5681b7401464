"""The table of objects, as the engine makes it."""

from __future__ import annotations

import numpy as np

from napari_svpseg.core.labels.measure import summary
from napari_svpseg.io.tables import tab_separated
from napari_svpseg.workflows.object_table import object_table


def scene():
    labels = np.zeros((2, 30, 40), np.uint32)
    labels[0, 2:6, 3:9], labels[0, 10:20, 10:20] = 4, 9
    labels[1, 5:15, 20:30] = 9
    return labels


def test_areas_come_first_and_confidence_is_that_of_the_option():
    labels = scene()
    probability = np.where(labels == 4, 0.45, np.where(labels == 9, 0.9, 0.1))
    first = []
    table = object_table(
        labels,
        labels.astype(float),
        probability,
        axes="ZYX",
        pixel_size=(0.5, 0.5),
        unit="um",
        corner={"Y": 100},
        on_partial=first.append,
    )
    assert table["label"].tolist() == [4, 9, 9] and table["z"].tolist() == [0, 0, 1]
    assert table["area"].tolist() == [24, 100, 100]
    np.testing.assert_allclose(table["area_um2"], [6, 25, 25])
    np.testing.assert_allclose(table["confidence"], [0.5, 1, 1])
    np.testing.assert_allclose(table["probability_mean"], [0.45, 0.9, 0.9])
    np.testing.assert_allclose(table["intensity_mean"], [4, 9, 9])
    assert table["bbox-0"].tolist() == [102, 110, 105]
    assert "solidity" in table and "solidity" not in first[0]
    np.testing.assert_array_equal(first[0]["area"], table["area"])
    facts = summary(table, labels.size)
    assert facts["objects"] == 2 and facts["covered"] == 224 / labels.size
    np.testing.assert_allclose(facts["area_um2"], 56 / 3)


def test_nothing_found_is_an_empty_table():
    table = object_table(np.zeros((9, 9), np.uint32))
    assert all(len(column) == 0 for column in table.values())
    assert summary(table, 81)["objects"] == 0


def test_a_table_is_pasted_as_cells():
    text = tab_separated({"label": np.array([7]), "area": np.array([np.nan])})
    assert text == "label\tarea\n7\t\n"
