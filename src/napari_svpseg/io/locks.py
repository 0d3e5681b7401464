"""Files by which one process keeps others out; the system frees those of the dead."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO


def locked(path: Path) -> IO[bytes] | None:
    """Return an open file with its lock, or None where somebody else holds it.

    Closing the file gives the lock back; so does the end of the process, however it
    ends.

    Raises
    ------
    OSError
        If the file cannot be opened for writing.
    """
    file = path.open("ab")
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(  # type: ignore[attr-defined,unused-ignore]
                file.fileno(),
                msvcrt.LK_NBLCK,  # type: ignore[attr-defined,unused-ignore]
                1,
            )
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file
