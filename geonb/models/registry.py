"""Names for local model folders, and what lies in the Hugging Face cache: added, listed, searched, deleted.

The names are one JSON file in geonb's cache folder. It is read, changed and replaced under a lock, so processes that
write at once lose nothing; what a folder holds is read anew each time it is listed.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geonb.errors import InputError
from geonb.models.cache import cache_folder
from geonb.models.headers import read_headers
from geonb.record_tables import table_html
from geonb.records import Record, atomic_write, is_folder, plain

# a name never has a slash, so it is never a hub id
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)
_WAIT = 30.0  # seconds for another process to finish writing
_FOUND_AT_MOST = 20
REGISTERED, CACHED, HUB = "registered", "Hugging Face cache", "hub"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel(Record):
    """A model by name: where it lies and what its config and headers say; `problem` tells why they say nothing."""

    name: str
    place: str  # "registered", "Hugging Face cache" or "hub"
    folder: str | None
    architecture: str
    parameters: int | None
    bytes_on_disk: int | None
    is_there: bool
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModels(Record):
    """The models that a list or a search found."""

    models: tuple[KnownModel, ...]
    searched: str | None
    notes: tuple[str, ...]

    def summary(self) -> str:
        return f"KnownModels({len(self.models)} models)"

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                plain(model.name),
                model.place,
                plain(model.architecture or "?"),
                f"{model.parameters:,}" if model.parameters is not None else "?",
                _size(model.bytes_on_disk),
                plain(model.problem or model.folder or ""),
            )
            for model in self.models
        ]

    def to_text(self) -> str:
        if not self.models:
            what = f"with {self.searched!r} in its name" if self.searched is not None else "registered or in the cache"
            lines = [f"no model {what}; `geonb model add NAME FOLDER` gives a folder a name"]
        else:
            rows = [("name", "place", "architecture", "parameters", "on disk", "folder"), *self._rows()]
            widths = [max(len(row[column]) for row in rows) for column in range(5)]
            lines = [
                "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]])
                for row in rows
            ]
        return "\n".join([line.rstrip() for line in lines] + [f"note: {plain(note)}" for note in self.notes])

    def to_html(self) -> str:
        columns = ("name", "place", "architecture", "parameters", "on disk", "folder")
        return table_html(columns, self._rows(), caption=". ".join((f"{len(self.models)} models", *self.notes)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted(Record):
    """A name that is gone, and how many bytes of files with it."""

    name: str
    folder: str
    files_deleted: bool
    bytes_freed: int

    def to_text(self) -> str:
        rest = f"with its folder, {_size(self.bytes_freed)}" if self.files_deleted else "its folder stays"
        return f"deleted the name {self.name} of {plain(self.folder)} ({rest})"


def add(name: str, folder: str | Path, *, overwrite: bool = False) -> KnownModel:
    """Give the model in `folder` a name that commands take in its place.

    Raises `InputError` for a name that is not 1 to 64 letters, digits, `.`, `_`, `-`, that is taken (unless
    `overwrite`), and for a folder that does not open as a checkpoint.
    """
    from geonb.models.checkpoint import Checkpoint

    if not _NAME.fullmatch(name) or name.casefold() == "embedded":
        raise InputError(
            f"the name {name!r} was given; allowed are 1 to 64 letters, digits, '.', '_' and '-', beginning with a letter or "
            "digit, other than embedded: choose such a name."
        )
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise InputError(
            f"{folder} is not a folder; a name is given to a local model: give the folder it was saved into."
        )
    path = path.resolve()
    Checkpoint.open(path)

    def change(names: dict[str, Any]) -> None:
        if name in names and not overwrite and names[name]["folder"] != str(path):
            raise InputError(
                f"the name {name} is taken by {names[name]['folder']}: choose another, or --overwrite to move it."
            )
        names[name] = {"folder": str(path), "added": datetime.now(UTC).isoformat(timespec="seconds")}

    _change(change)
    return _described(name, REGISTERED, path)


def list_models(*, cached: bool = True) -> KnownModels:
    """Every registered name, then (with `cached`) every model of the Hugging Face cache, each with what it is now."""
    found = [_described(name, REGISTERED, Path(entry["folder"])) for name, entry in sorted(_read().items())]
    notes: list[str] = []
    if cached:
        found += _cached(notes)
    return KnownModels(models=tuple(found), searched=None, notes=tuple(notes))


def search(text: str, *, hub: bool = False) -> KnownModels:
    """Registered and cached models with `text` in their name, case aside; with `hub` those of the hub as well.

    Raises `InputError` for an empty text, and with `hub` where the hub does not answer.
    """
    if not text.strip():
        raise InputError("an empty text was given; allowed is a part of a model's name: give one.")
    known = list_models()
    found = [model for model in known.models if text.casefold() in model.name.casefold()]
    if hub:
        here = {model.name for model in found}
        found += [model for model in _on_hub(text) if model.name not in here]
    return KnownModels(models=tuple(found), searched=text, notes=known.notes)


def folder_of(name: str) -> Path | None:
    """The folder registered as `name`, None where there is no such name; `InputError` where the folder is gone."""
    entry = _read().get(name) if _NAME.fullmatch(name) else None
    if entry is None:
        return None
    folder = Path(entry["folder"])
    if not folder.is_dir():
        raise InputError(
            f"the model {name} is registered for {folder}, which is gone: add it again, or `geonb model delete {name}`."
        )
    return folder


def delete(name: str, *, files: bool = False) -> Deleted:
    """Forget `name`; with `files` delete its folder as well (ask first: it cannot be undone).

    Raises `InputError` for an unknown name and, with `files`, for a folder that is not the model's alone: one reached
    through a link, in the Hugging Face cache, with another registered name in it, or with the working or home folder
    inside. Links within the folder are removed, what they point to is not.
    """
    folder = deletable(name) if files else Path(_entry(_read(), name)["folder"])
    was_there = folder.is_dir()
    freed = _bytes_in(folder) if files and was_there else 0

    def change(names: dict[str, Any]) -> None:
        if _entry(names, name)["folder"] != str(folder):
            raise InputError(f"the name {name} was given to another folder meanwhile: look at it again.")
        if files and folder.is_dir():
            shutil.rmtree(folder)
        del names[name]

    _change(change)
    return Deleted(name=name, folder=str(folder), files_deleted=files and was_there, bytes_freed=freed)


def deletable(name: str) -> Path:
    """The folder that `delete(name, files=True)` would delete, after the same checks."""
    from geonb.assets import embedded_model_folder

    names = _read()
    folder = Path(_entry(names, name)["folder"])
    others = [Path(entry["folder"]) for other, entry in names.items() if other != name]
    inside = {
        "home": Path.home(),
        "working": Path.cwd(),
        "cache": cache_folder(),
        "embedded model's": embedded_model_folder(),
    }
    held = [what for what, place in inside.items() if place.resolve().is_relative_to(folder)]
    why = None
    if folder.resolve() != folder:
        why = "is reached through a link now"
    elif held:
        why = f"holds the {held[0]} folder"
    elif any(other.is_relative_to(folder) or folder.is_relative_to(other) for other in others):
        why = "is shared with another registered name"
    elif folder.is_relative_to(_hub_cache().resolve()):
        why = "belongs to the Hugging Face cache (`hf cache rm` deletes there)"
    elif folder.is_dir() and not (folder / "config.json").is_file():
        why = "holds no config.json any more"
    if why is not None:
        raise InputError(f"{folder} {why}, so its files are not deleted: delete the name alone, and the files by hand.")
    return folder


def _entry(names: dict[str, Any], name: str) -> dict[str, Any]:
    if name == "embedded":
        raise InputError("embedded is the model that geonb ships; it cannot be deleted: give a name that you added.")
    if name not in names:
        raise InputError(
            f"no model is registered as {name!r}; there are {', '.join(sorted(names)) or 'none'}: give one."
        )
    return names[name]


def _file() -> Path:
    return cache_folder() / "models.json"


def _read() -> dict[str, Any]:
    path = _file()
    if not path.is_file():
        return {}
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["models"]
        if all(_NAME.fullmatch(name) and isinstance(entry["folder"], str) for name, entry in names.items()):
            return names
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise InputError(
        f"{path} is not a list of models that geonb wrote: mend it, or delete it and add the models again."
    )


def _change(change: Callable[[dict[str, Any]], None]) -> None:
    from filelock import FileLock, Timeout

    path = _file()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{path}.lock", timeout=_WAIT):
            names = _read()
            change(names)
            atomic_write(path, json.dumps({"schema": 1, "models": names}, indent=1) + "\n")
    except Timeout:
        raise InputError(
            f"{path} has been locked by another process for {_WAIT:.0f} s: wait until that one is done, and try again."
        ) from None


def _described(name: str, place: str, folder: Path, size: int | None = None) -> KnownModel:
    """What the config and the headers of `folder` say, without loading the model."""
    architecture, parameters, problem = "", None, ""
    is_there = is_folder(folder)
    try:
        if not is_there:
            raise InputError(f"{folder} is gone")
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        architecture = str((config.get("architectures") or [config.get("model_type", "")])[0])
        parameters = sum(_product(header.shape) for header in read_headers(folder).values())
    except InputError as error:
        problem = str(error)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        problem = f"its config.json cannot be read ({type(error).__name__})"
    return KnownModel(
        name=name,
        place=place,
        folder=str(folder),
        architecture=architecture,
        parameters=parameters,
        bytes_on_disk=size if size is not None or not is_there else _bytes_in(folder),
        is_there=is_there,
        problem=problem,
    )


def _product(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _bytes_in(folder: Path) -> int:
    """Bytes of the files below `folder` itself; links count as nothing."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _cached(notes: list[str]) -> Iterator[KnownModel]:
    """The newest revision of every model in the Hugging Face cache, which is only read."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        scanned = scan_cache_dir(_hub_cache())
    except (CacheNotFound, OSError, ValueError):
        return
    if scanned.warnings:
        notes.append(f"{len(scanned.warnings)} entries of the Hugging Face cache are damaged and not shown")
    for repository in sorted(scanned.repos, key=lambda one: one.repo_id):
        if repository.repo_type == "model" and repository.revisions:
            newest = max(repository.revisions, key=lambda one: ("main" in one.refs, one.last_modified, one.commit_hash))
            yield _described(repository.repo_id, CACHED, newest.snapshot_path, newest.size_on_disk)


def _on_hub(text: str) -> list[KnownModel]:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    try:
        found = list(HfApi().list_models(search=text, filter="safetensors", limit=_FOUND_AT_MOST))
    except (HTTPError, OSError) as error:
        reason = str(error).split("\n")[0][:160]
        raise InputError(f"the hub did not answer ({reason}): check the network, or search without --hub.") from None
    return [
        KnownModel(
            name=model.id,
            place=HUB,
            folder=None,
            architecture=model.pipeline_tag or "",
            parameters=None,
            bytes_on_disk=None,
            is_there=False,
            problem="not fetched yet",
        )
        for model in found
    ]


def _size(count: int | None) -> str:
    if count is None:
        return "?"
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
