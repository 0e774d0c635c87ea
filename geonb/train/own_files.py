"""The files that a run writes into its folder: a folder that came from elsewhere may hold links, and none is followed.

A file that is replaced as a whole (`atomic_write`) replaces a link as well and leaves its target alone. What is appended to,
cut, locked or put into a folder would be written at the link's target instead, so it is refused.
"""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path
from typing import cast

from geonb.errors import InputError


def refuse_link(path: Path, consequence: str) -> None:
    """Raise `InputError` where `path` is a link, also one to nowhere; `consequence` is what is not done and what to do.

    >>> refuse_link(Path("nowhere"), "nothing is saved there: remove it")
    """
    if path.is_symlink():
        raise InputError(f"{path} is a link to elsewhere, so {consequence}.")


def open_own(path: Path, mode: str, consequence: str) -> FileIO:
    """The ordinary file `path`, opened unbuffered in `mode` ("ab" or "r+b"); a link is refused, and nothing waits.

    Raises `InputError` for a link, a folder, a pipe or a device.
    """
    refuse_link(path, consequence)
    refuse_other(path, consequence)

    def opener(name: str, flags: int) -> int:
        # a link or a pipe that was put there since the look: the kernel says no by itself
        return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)

    try:
        stream = cast(FileIO, open(path, mode, buffering=0, opener=opener))
    except OSError:
        refuse_link(path, consequence)
        raise
    return stream


def refuse_other(path: Path, consequence: str) -> None:
    """Raise `InputError` where something stands at `path` that is no ordinary file."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is no file, so {consequence}.")
