"""The cache under the user's cache folder: file digests by stat, singular values by content."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np

from geonb.errors import InputError
from geonb.geometry.spectrum import Spectrum
from geonb.records import atomic_write

# part of every key: raise it when singular_values changes what it returns
METHOD_VERSION = 2


def cache_folder() -> Path:
    """$GEONB_CACHE, else $XDG_CACHE_HOME/geonb, else ~/.cache/geonb."""
    own = os.environ.get("GEONB_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "geonb"


def file_digest(path: Path) -> str:
    """sha256 of a file, remembered by (path, size, modification time)."""
    stat = path.stat()
    key = hashlib.sha256(f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}".encode()).hexdigest()
    entry = cache_folder() / "files" / key
    try:
        remembered = entry.read_text(encoding="ascii")
        if len(remembered) == 64:
            return remembered
    except OSError:
        pass
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    _store(entry, digest.encode())
    return digest


def spectrum_key(content: bytes | memoryview, shape: tuple[int, ...], dtype: str) -> str:
    """The name of a spectrum: sha256 of the matrix's bytes with its shape, dtype and the method's version."""
    digest = hashlib.sha256(f"{METHOD_VERSION}\0{shape}\0{dtype}\0".encode())
    digest.update(content)
    return digest.hexdigest()


def load_spectrum(key: str) -> Spectrum | None:
    """The stored spectrum, or None where there is none or it cannot be read."""
    path = cache_folder() / "spectra" / f"{key}.npz"
    try:
        # from memory: numpy leaves a damaged file open
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            # through the record's own reader: a damaged entry is measured again, not believed
            return Spectrum.from_dict({**json.loads(str(stored["facts"])), "values": stored["values"].tolist()})
    except (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError, InputError, zipfile.BadZipFile):
        return None


def store_spectrum(key: str, spectrum: Spectrum) -> None:
    """Keep a spectrum; a cache that cannot be written is no cache, not an error."""
    facts = {name: value for name, value in spectrum.to_dict().items() if name != "values"}
    buffer = io.BytesIO()
    np.savez(buffer, values=spectrum.values, facts=np.array(json.dumps(facts)))
    _store(cache_folder() / "spectra" / f"{key}.npz", buffer.getvalue())


def _store(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, content)
    except OSError:
        pass
