"""Show an OME-Zarr in neuroglancer in Chromium; run by the clients' Python.

    python show_in_neuroglancer.py neuroglancer PATH FOLDER

Writes into FOLDER what the middle of the image shows, with the ids as colours, one
pixel of the screen for one of the image along X: ``ids.npy`` and ``view.json``.
"""

from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np

SIZE = (400, 300)
"""Width and height of the view in pixels."""

LIMIT_S = 90

SHADER = """
void main() {
  uint id = toRaw(getDataValue());
  emitRGB(vec3(float(id & 255u), float((id >> 8) & 255u), float(id >> 16)) / 255.0);
}
"""


class _Files(http.server.SimpleHTTPRequestHandler):
    """Files for a page of another server."""

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()

    def log_message(self, *words: Any) -> None:
        pass


def main(program: str, path: str, folder: str) -> int:
    """Show and write; return the exit status, 3 without the programs."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None or importlib.util.find_spec(program) is None:
        return 3
    import neuroglancer

    store = Path(path)
    handler = functools.partial(_Files, directory=str(store.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    viewer = neuroglancer.Viewer()
    source = f"zarr://http://127.0.0.1:{server.server_port}/{store.name}"
    with viewer.txn() as state:
        state.layers["a"] = neuroglancer.ImageLayer(source=source, shader=SHADER)
        state.layout = "xy"
        state.show_axis_lines = state.show_scale_bar = False
    with viewer.config_state.txn() as config:
        config.show_ui_controls = config.show_panel_borders = False
    shots: list[Any] = []
    take = threading.Thread(
        target=lambda: shots.append(viewer.screenshot(size=SIZE)), daemon=True
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        words = ["--headless=new", "--no-sandbox", "--use-angle=swiftshader"]
        words += ["--enable-unsafe-swiftshader", f"--user-data-dir={profile}"]
        shown = subprocess.Popen(
            [browser, *words, viewer.get_viewer_url()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            take.start()
            take.join(LIMIT_S)
        finally:
            shown.terminate()
            shown.wait()
    pixels = shots[0].screenshot.image_pixels.astype(np.uint32)
    np.save(Path(folder) / "ids.npy", pixels[..., :3] @ np.uint32([1, 256, 65536]))
    (Path(folder) / "view.json").write_text(json.dumps(viewer.state.to_json()), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
