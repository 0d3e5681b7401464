#!/usr/bin/env bash
# napari: to make or to move a progress bar runs whatever else waits in the event loop.
#
# Expected: progress(total=3) and update() in the thread of the window draw a bar; a
# callback of a timer, or a result that a thread has sent, comes after the callback that
# is running, as always in Qt.
# Seen: the bar handles all waiting events (QApplication.processEvents) when it is made,
# moved or described, so these callbacks run inside the call, in the middle of the other.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q napari==0.9.2 PyQt6==6.11.0 numpy==2.4.6
cat > "$folder/show.py" <<'PY'
import napari
from napari.utils import progress
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

viewer = napari.Viewer(show=False)
seen = []


def long_callback():
    QTimer.singleShot(0, lambda: seen.append("while it is made"))
    bar = progress(total=3)
    made = list(seen)
    QTimer.singleShot(0, lambda: seen.append("while it moves"))
    bar.update(1)
    moved = list(seen)
    bar.close()
    print("napari", napari.__version__)
    print("expected inside the callback: []  seen:", moved)
    assert made == ["while it is made"]
    assert moved == ["while it is made", "while it moves"]
    done.append(True)


done = []
QTimer.singleShot(0, long_callback)
for _ in range(100):
    QApplication.processEvents()
    if done:
        break
viewer.close()
assert done
PY
QT_QPA_PLATFORM=offscreen "$folder/env/bin/python" "$folder/show.py"
