"""Errors of callbacks, shown as a message in the dock that they belong to.

Qt, napari and threads call the plugin at any time. What is raised there would show a
traceback, stop what napari is doing, or be lost; here it becomes one line.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, TypeVar

from .messages import sentence

logger = logging.getLogger(__name__)

Class = TypeVar("Class", bound=type)

PREFIX = "_on_"
"""Beginning of the names of methods that Qt or napari calls."""
MARK = "_reports_errors"
"""Attribute of functions that report their errors."""


def reports_errors(*names: str) -> Callable[[Class], Class]:
    """Return a class decorator: callbacks of the class report their errors.

    These are the methods named ``_on_...``, and further ones that are connected to
    signals, timers and events. See `tell` for where their errors are shown.

    Parameters
    ----------
    *names : str
        Names of further methods.
    """

    def dress(kind: Class) -> Class:
        for name in [n for n in vars(kind) if n.startswith(PREFIX) or n in names]:
            setattr(kind, name, _reporting(vars(kind)[name]))
        return kind

    return dress


def guarded(owner: Any, function: Callable[..., Any]) -> Callable[..., None]:
    """Return a function that shows errors as those of a method of ``owner``."""

    def safe(*args: Any) -> None:
        try:
            function(*args)
        except Exception as error:  # noqa: BLE001  (the user is told)
            tell(owner, error)

    setattr(safe, MARK, True)
    return safe


def tell(owner: Any, error: BaseException) -> None:
    """Show an error in one line; the log keeps the traceback.

    Parameters
    ----------
    owner : object
        A dock, a part of one, its controller, or an object with a signal ``message``
        that a dock shows. Errors of others become a notification of napari.
    error : exception
    """
    logger.error("a callback of %s failed", type(owner).__name__, exc_info=error)
    try:
        _say_of(owner)(sentence(error), True)
    except RuntimeError:  # Qt has deleted the dock
        logger.debug("no dock is left to show it")


def _say_of(owner: Any) -> Callable[[str, bool], object]:
    """Return the function that shows a message of an object, and whether it is bad."""
    view = getattr(owner, "view", None)
    if callable(getattr(view, "say", None)):
        return view.say  # type: ignore[no-any-return, union-attr]
    place = owner
    while place is not None:
        if callable(getattr(place, "say", None)):
            return place.say  # type: ignore[no-any-return]
        emit = getattr(getattr(place, "message", None), "emit", None)
        if emit is not None:
            return emit  # type: ignore[no-any-return]
        parent = getattr(place, "parent", None)
        place = parent() if callable(parent) else None
    return _notify


def _notify(text: str, is_error: bool) -> None:
    """Show a message in the corner of the window, or in the console without one."""
    from napari.utils.notifications import show_error

    show_error(text)


def _reporting(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that shows its errors; it takes no more values than it needs.

    Signals may have more values than a method takes.
    """
    known = inspect.Parameter
    kinds = [p.kind for p in inspect.signature(method).parameters.values()]
    placed = [
        k for k in kinds if k in (known.POSITIONAL_ONLY, known.POSITIONAL_OR_KEYWORD)
    ]
    most = None if known.VAR_POSITIONAL in kinds else len(placed) - 1

    @wraps(method)
    def call(self: Any, *args: Any, **options: Any) -> Any:
        try:
            return method(self, *args[:most], **options)
        except Exception as error:  # noqa: BLE001  (the user is told)
            tell(self, error)

    @wraps(method)
    def iterate(self: Any, *args: Any) -> Iterator[Any]:
        try:
            yield from method(self, *args[:most])
        except Exception as error:  # noqa: BLE001  (the user is told)
            tell(self, error)

    made = iterate if inspect.isgeneratorfunction(method) else call
    setattr(made, MARK, True)
    return made
