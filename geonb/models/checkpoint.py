"""A checkpoint in Hugging Face form, opened without loading: a folder, a hub id, or `embedded`."""

from __future__ import annotations

import functools
import hashlib
import re
from pathlib import Path
from typing import Any

from geonb.errors import InputError
from geonb.models import cache
from geonb.models.architecture import build_architecture, find_matrices, refuse_unheld_layers
from geonb.models.headers import read_headers
from geonb.models.matrix_ref import MatrixRef
from geonb.records import parse_json

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]


class Checkpoint:
    """A model on disk: its config, its matrices by role, and one matrix at a time on request.

    >>> checkpoint = Checkpoint.open("embedded")
    >>> checkpoint.model_type
    'llama'
    """

    def __init__(self, source: str, folder: Path) -> None:
        self.source = source
        self.folder = folder
        self.name = "embedded" if source == "embedded" else Path(source).name
        self.config = _read_config(folder)
        _refuse_quantised(folder, self.config)
        self.headers = read_headers(folder)
        refuse_unheld_layers(folder, self.config, self.headers)
        self._architecture = build_architecture(folder, self.config)
        self.model_type = self._architecture.model_type
        self.architecture = self._architecture.name
        self.is_causal = self._architecture.is_causal
        self.refs: tuple[MatrixRef, ...] = find_matrices(self._architecture, self.headers)

    @classmethod
    def open(cls, source: str | Path) -> Checkpoint:
        """Open `source`; raises `InputError` with one sentence for anything that is not a readable checkpoint."""
        return cls(str(source), resolve(source))

    @property
    def context_length(self) -> int | None:
        """The longest sequence that the config allows, in tokens; None where it does not say."""
        for key in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
            value = self.config.get(key) or (self.config.get("text_config") or {}).get(key)
            if isinstance(value, int) and value > 0:
                return value
        return None

    @property
    def layers(self) -> int:
        """How many blocks hold matrices."""
        return len({ref.layer for ref in self.refs if ref.layer is not None})

    @property
    def weight_bytes(self) -> int:
        """The size of the weight files together."""
        return sum(path.stat().st_size for path in {header.file for header in self.headers.values()})

    @property
    def parameters(self) -> int:
        """Stored numbers, tied ones once."""
        total = 0
        for header in self.headers.values():
            count = 1
            for size in header.shape:
                count *= size
            total += count
        return total

    @functools.cached_property
    def files(self) -> dict[str, str]:
        """sha256 of config.json and of every weight file, by relative path."""
        paths = {self.folder / "config.json", *(header.file for header in self.headers.values())}
        return {path.relative_to(self.folder).as_posix(): cache.file_digest(path) for path in sorted(paths)}

    @functools.cached_property
    def digest(self) -> str:
        """sha256 over the sorted (relative path, file sha256): the same for equal bytes, whatever order a disk lists."""
        joined = hashlib.sha256()
        for name, digest in sorted(self.files.items()):
            joined.update(f"{name}\0{digest}\n".encode())
        return joined.hexdigest()

    def ref(self, name: str) -> MatrixRef:
        """The matrix called `name`."""
        found = next((ref for ref in self.refs if ref.name == name), None)
        if found is None:
            raise InputError(f"{self.source} has no matrix {name!r}; `geonb model info {self.source}` lists them.")
        return found

    def read(self, ref: MatrixRef) -> Any:
        """The matrix as a torch tensor (out, in) in its stored dtype; only its own bytes are read."""
        import torch
        from safetensors import SafetensorError, safe_open

        pieces = []
        for part in ref.parts:
            header = self.headers[part]
            try:
                with safe_open(header.file, framework="pt") as stream:
                    piece = stream.get_slice(part)[ref.slice] if ref.slice is not None else stream.get_tensor(part)
            except SafetensorError as error:
                raise InputError(f"{header.file} cannot be read ({error}): copy or download it again.") from None
            pieces.append(piece)
        matrix = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
        if matrix.ndim > 2:
            matrix = matrix.flatten(1)
        return matrix.mT if ref.transposed else matrix

    def load_tokenizer(self) -> Any:
        """The checkpoint's own fast tokenizer; raises `InputError` where it has none."""
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False, local_files_only=True)
        except Exception as error:  # tokenizers raises bare Exceptions for what a stranger's file holds
            reason = str(error).split("\n")[0][:160]
            raise InputError(
                f"{self.source} has no tokenizer that can be loaded ({reason}): add its tokenizer.json."
            ) from None
        longest: Any = tokenizer.model_max_length
        if isinstance(longest, bool) or not isinstance(longest, int | float):
            raise InputError(
                f"{self.folder / 'tokenizer_config.json'} gives model_max_length as a {type(longest).__name__}; allowed is a "
                "number: correct it."
            )
        return tokenizer

    def __repr__(self) -> str:
        return f"Checkpoint({self.source!r}, {self.architecture}, {len(self.refs)} matrices)"


def resolve(source: str | Path) -> Path:
    """The local folder of a source; a hub id is fetched (safetensors and JSON only), nothing else ever is."""
    text = str(source)
    if text == "embedded":
        from geonb.assets import embedded_model_folder

        return embedded_model_folder()
    try:
        path = Path(text).expanduser()
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError, RuntimeError):
        # a name that no file can have, or the home of somebody who is not there
        raise InputError(
            f"{text[:80]!r} is no name that a folder can have; allowed are a model's folder, a hub id or `embedded`."
        ) from None
    if is_folder:
        return path
    if exists:
        raise InputError(
            f"{text} is a file; a model is a folder with config.json and safetensors, a hub id, or `embedded`."
        )
    if (named := registered_folder(text)) is not None:
        return named
    if _HUB_ID.fullmatch(text) and not path.parent.is_dir():
        return _fetch(text)
    raise InputError(
        f"{text} does not exist; allowed are a model's folder, a hub id such as owner/name, or `embedded`."
    )


def registered_folder(name: str) -> Path | None:
    """The folder that `geonb model add` gave the name to, if it did."""
    from geonb.models import registry

    return registry.folder_of(name)


def _fetch(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).split("\n")[0][:160]
        raise InputError(
            f"{hub_id} is no local folder, and the hub did not deliver it ({reason}): check the name and the network."
        ) from None


def _read_config(folder: Path) -> dict:
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"{folder} has no config.json; give the folder that a model was saved into.")
    try:
        config = parse_json(path.read_bytes(), str(path))
    except InputError:
        raise InputError(f"{path} is not JSON: copy or download it again.") from None
    if not isinstance(config, dict):
        raise InputError(f"{path} holds a JSON {type(config).__name__}; a config is an object: copy it again.")
    return config


def _refuse_quantised(folder: Path, config: dict) -> None:
    scheme = config.get("quantization_config")
    if scheme:
        kind = scheme.get("quant_method", "unknown") if isinstance(scheme, dict) else "unknown"
        raise InputError(
            f"{folder} is quantised ({kind}), and a quantised matrix has another spectrum than the model's own; "
            "allowed is a checkpoint in float32, float16 or bfloat16: give the unquantised one."
        )
