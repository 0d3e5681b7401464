"""The histogram of a measurement."""

from __future__ import annotations

import numpy as np

from napari_svpseg.plugin.panels.histogram import Histogram


def test_pyqtgraph_is_loaded_with_the_first_values(qtbot):
    histogram = Histogram()
    qtbot.addWidget(histogram)
    histogram.show_values(np.array([np.nan]), (0, 1))
    assert histogram._plot is None
    histogram.show_values(np.arange(5.0), (0, 4))
    assert histogram._plot is not None and histogram._plot.isVisibleTo(histogram)
    histogram.show_values(np.zeros(0), (0, 1))
    assert not histogram._plot.isVisibleTo(histogram)
