"""An export appears whole or not at all: it is made in a hidden folder beside its place, and renamed at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geonb.errors import InputError

RECORD = "export.json"  # in every export: how a later --overwrite knows that a folder is one


def check_output(output: str | Path, *sources: Path, overwrite: bool) -> Path:
    """The path of the export, or `InputError`: it must be new, empty, or with `overwrite` an earlier export.

    An output that is, or contains, one of `sources` (the base, the adapter) is refused whatever `overwrite` says.
    """
    path = Path(output).expanduser()
    place = path.resolve()
    for source in sources:
        if source.resolve().is_relative_to(place):
            raise InputError(f"the output {path} holds {source}, which is what is exported: choose another folder.")
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return path
    if not overwrite:
        raise InputError(
            f"the output {path} exists; allowed is a new or empty folder: choose another with -o, or add --overwrite to "
            "replace an earlier export."
        )
    if not (path / RECORD).is_file():
        raise InputError(
            f"{path} is no export of geonb (it holds no {RECORD}), so --overwrite leaves it alone: choose another with -o."
        )
    return path


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `output` when the block ends, and vanishes when it raises."""
    missing = [parent for parent in output.parents if not parent.exists()]
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}.", suffix=".part"))
    try:
        # mkdtemp makes a folder private to its owner; a result is an ordinary one
        folder.chmod(0o755)
        yield folder
        _replace(folder, output)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in missing:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        raise


def _replace(folder: Path, output: Path) -> None:
    """Put `folder` in the place of `output`; the old one goes only when the new one stands."""
    if not output.exists():
        folder.rename(output)
        return
    old = folder.with_suffix(".old")
    output.rename(old)
    try:
        folder.rename(output)
    except BaseException:
        old.rename(output)
        raise
    shutil.rmtree(old, ignore_errors=True)


def size_of(folder: Path) -> dict[str, int]:
    """Bytes of every file in `folder`, by its relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
