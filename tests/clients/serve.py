"""Serve a program to the tests: started once, it opens one file after another."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping

READY, NOT_INSTALLED, DONE = "ready", "not installed", "done"


def serve(opens: Mapping[str, Callable[[str, str], None]]) -> None:
    """Open paths for the tests until stdin ends.

    Each line of stdin is a path and a folder for what is found there, as JSON; the
    answer is `DONE` or a traceback, as JSON.

    Parameters
    ----------
    opens : mapping of str to callable
        Function of path and folder for each program; argv names the one.
    """
    (name,) = sys.argv[1:]
    answers = sys.stdout
    print(READY if importlib.util.find_spec(name) else NOT_INSTALLED, flush=True)
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(sys.stderr):  # programs print too
        for line in sys.stdin:
            try:
                opens[name](*json.loads(line))
                answer = DONE
            except Exception:  # noqa: BLE001  (the test shows it)
                answer = traceback.format_exc()
            print(json.dumps(answer), file=answers, flush=True)
