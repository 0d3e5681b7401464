"""The ``svpseg`` command: its sub-commands, errors and exit status.

Exit status: 0 all done, 1 some inputs failed (each named, the others done), 2 usage.
"""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

import typer

from ..core.errors import DEBUG, joined, one_line
from ..engine.jobs.allocator import keep_freed_memory
from ..engine.jobs.processors import prepare_threads
from .benchmark import benchmark
from .benchmark_windows import benchmark_windows
from .console import LogLine, say, show, show_lines
from .convert import convert
from .correct import correct
from .demo import demo
from .finetune import finetune
from .models import models_app
from .prompts import prompts_app
from .segment import segment
from .series import list_series
from .train import train
from .train_tags import train_tags

app = typer.Typer(
    name="svpseg",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Find more of these: one labelled 64 x 64 box, every such cell as an object.",
)
app.add_typer(prompts_app, name="prompts")
app.add_typer(models_app, name="models")
for _command in (
    demo,
    segment,
    correct,
    convert,
    finetune,
    train_tags,
    train,
    benchmark,
    benchmark_windows,
):
    app.command()(_command)
app.command("series")(list_series)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; errors are one line on stderr."""
    debug = bool(os.environ.get(DEBUG))
    _show_our_log(logging.DEBUG if debug else logging.WARNING)
    _stop_cleanly_when_terminated()
    keep_freed_memory()
    prepare_threads()
    if isinstance(sys.stdout, io.TextIOWrapper):  # for names that are no UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        words = with_joined_corners(sys.argv[1:] if argv is None else argv)
        status = app(words, prog_name="svpseg", standalone_mode=False)
    except KeyboardInterrupt:
        say("stopped")
        return 130
    except Exception as error:
        if hasattr(error, "format_message"):  # usage, found by typer
            text = error.format_message()
            if text.startswith("Usage:"):  # the help of a command without arguments
                show_lines(text, sys.stderr)
            else:
                say(f"{joined(text)} (try --help)")
            return 2
        if debug:
            raise
        say(one_line(error))
        return 1
    return status if isinstance(status, int) else 0


POINT_OPTIONS = ("--box", "--not-this", "--this-too")
"""Options of two whole numbers, y and x."""


def with_joined_corners(words: Sequence[str]) -> list[str]:
    """Return arguments in which ``--box Y X`` is the one value ``--box Y,X``.

    So are ``--not-this Y X`` and ``--this-too Y X``.

    Typer has no repeatable option of two values.

    Examples
    --------
    >>> with_joined_corners(["a.tif", "--box", "16", "40", "-o", "out"])
    ['a.tif', '--box', '16,40', '-o', 'out']
    """
    joined: list[str] = []
    for word in words:
        is_number = word.removeprefix("-").isdigit()
        follows = is_number and bool(joined[-2:-1]) and joined[-2] in POINT_OPTIONS
        if follows and "," not in joined[-1]:
            joined[-1] += f",{word}"
        else:
            joined.append(word)
    return joined


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.")
    ] = False,
) -> None:
    if version:
        from ..core.result import versions

        show(versions()["napari-svpseg"])
        raise typer.Exit


def _show_our_log(level: int) -> None:
    """Print the log of this package, and of no other, as lines on stderr."""
    logger = logging.getLogger(__package__.partition(".")[0])
    logger.setLevel(level)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(LogLine())
        logger.addHandler(handler)


def _stop_cleanly_when_terminated() -> None:
    """Exit normally when terminated, or when the terminal is closed.

    Then temporary files are deleted, checkpoints written and records ended.
    """
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        # nohup has it ignored, which stays
        if number is None or signal.getsignal(number) is signal.SIG_IGN:
            continue
        with suppress(ValueError):  # only the main thread may set signal handlers
            signal.signal(number, lambda number, _: sys.exit(128 + number))


if __name__ == "__main__":
    sys.exit(main())
