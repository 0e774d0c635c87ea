"""One base model in memory and any number of PEFT adapters beside it, switched on one at a time.

PEFT applies the adapters, so what is measured here is what its users get.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geonb.adapters.foreign import read_config
from geonb.adapters.patterns import refuse_unsafe_patterns
from geonb.adapters.peft_files import CONFIG, WEIGHTS
from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.models.headers import read_header
from geonb.models.runtime import TorchRuntime
from geonb.records import is_file, is_folder, plain

_LEAVES_BASE = ("gaussian", "eva", "orthogonal", "mica")  # starts of A and B that do not touch W
# a state_dict that was saved by hand keeps PEFT's default name in its keys; only that name is read by `PeftModel` too
_NAMED = re.compile(r"\.default((?:\.weight|\.bias)?)$")
_OWN = re.compile(r"\.lora_[AB](\.default)?\.weight$")  # what PEFT can only put into the adapter's own factors


@dataclass(slots=True)
class Bench:
    """A loaded base and its adapters by label; nothing is active outside `using`.

    >>> bench = Bench.open("embedded")
    >>> bench.labels
    ()
    """

    runtime: TorchRuntime
    adapters: dict[str, Path]
    _wrapped: Any = None

    @classmethod
    def open(
        cls,
        model: str | Path | Checkpoint,
        adapters: Mapping[str, str | Path] | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
    ) -> Bench:
        """Load the base once and every adapter onto it.

        Raises `InputError` where the base is no causal model, where a folder holds no safetensors LoRA adapter, or where
        an adapter does not fit the base (a missing or unknown module, another shape).
        """
        checkpoint = model if isinstance(model, Checkpoint) else Checkpoint.open(model)
        given = {label: adapter_folder(path) for label, path in (adapters or {}).items()}
        bench = cls(runtime=TorchRuntime.load(checkpoint, device=device, dtype=dtype), adapters={})
        for label, folder in given.items():
            bench.add(label, folder)
        return bench

    @property
    def labels(self) -> tuple[str, ...]:
        """The adapters, in the order in which they were added."""
        return tuple(self.adapters)

    @property
    def model(self) -> Any:
        """What runs: the base itself, or PEFT's wrapper around it."""
        return self._wrapped if self._wrapped is not None else self.runtime.model

    def add(self, label: str, folder: str | Path) -> None:
        """Load one more adapter onto the base; the base is not loaded again.

        Raises `InputError` as `open` does, and where the adapter would change the base; the bench is then as it was.
        """
        path = adapter_folder(folder)
        if label in self.adapters:
            raise InputError(f"two adapters were called {label!r}: give each a label of its own.")
        config = read_config(path)
        refuse_unsafe_patterns(config, path / CONFIG)
        refuse_changed_base(config, path)
        stored = read_header(path / WEIGHTS)
        foreign = [(key, header.shape) for key, header in stored.items() if not _OWN.search(key)]
        name = f"adapter{len(self.adapters)}"  # PEFT allows no dots in a name, and a label is a person's
        before = _Before.of(self.model, {shape for _, shape in foreign})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                wrapped = self._load(path, name, list(stored))
            except Exception as error:  # a stranger's files can make PEFT raise nearly anything
                before.restore(self.model, name)
                reason = plain(" ".join(str(error).split()))[:200]
                raise InputError(
                    f"the adapter {path} does not fit {self.runtime.checkpoint.source} ({reason}): give the base that it "
                    "was trained on."
                ) from None
        missing = [str(one.message) for one in caught if "missing adapter keys" in str(one.message).lower()]
        if missing:
            before.restore(self.model, name)
            raise InputError(
                f"the adapter {path} lacks factors that its config promises ({' '.join(missing[0].split())[:160]}): "
                "save it again; PEFT would run without them."
            )
        changed = before.changed_shapes()
        if changed:
            before.restore(self.model, name)
            key = plain(next(key for key, shape in foreign if shape in changed))[:100]
            raise InputError(
                f"the adapter {path} changes its base or another adapter as it is loaded (its file holds {key}): a bench "
                "needs one that leaves them alone, so save it again without that tensor."
            )
        # whoever runs the model through the runtime runs it with the adapter that is on: none outside `using`
        self._wrapped = self.runtime.model = wrapped
        wrapped.base_model.disable_adapter_layers()
        self.adapters[label] = path
        for one in caught:
            # transformers warns of its own old name whenever PEFT asks for it; all else is for the caller
            if "is_gradient_checkpointing" not in str(one.message):
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)

    def _load(self, path: Path, name: str, stored: list[str]) -> Any:
        """PEFT's own loading; keys with its own default name in them are read as a plain `PeftModel` reads them."""
        from peft import PeftModel

        keys = [_NAMED.sub(r"\1", key) for key in stored]
        if len(set(keys)) < len(keys):
            raise ValueError("a factor is stored twice, with and without an adapter's name")
        mapping = getattr(self.runtime.model, "_checkpoint_conversion_mapping", None) or {}
        renamed: dict[str, str] | None = {_NAMED.pattern: r"\1", **mapping} if keys != stored else None
        if self._wrapped is not None:
            found = self._wrapped.load_adapter(str(path), adapter_name=name, is_trainable=False, key_mapping=renamed)
            if found.missing_keys:  # PEFT tells of them only when it loads the first adapter
                warnings.warn(f"missing adapter keys: {found.missing_keys}", stacklevel=2)
            return self._wrapped
        return PeftModel.from_pretrained(
            self.runtime.model, str(path), adapter_name=name, is_trainable=False, key_mapping=renamed
        ).eval()

    @contextmanager
    def using(self, label: str | None) -> Iterator[Any]:
        """Inside the block the adapter `label` is on and every other is off; None is the bare base. Yields the model."""
        if label is None:
            yield self.runtime.model
            return
        if label not in self.adapters:
            raise InputError(f"there is no adapter {label!r}; loaded are {', '.join(self.adapters) or 'none'}.")
        self._wrapped.base_model.enable_adapter_layers()
        self._wrapped.set_adapter(f"adapter{self.labels.index(label)}")
        self._wrapped.requires_grad_(False)
        try:
            yield self._wrapped
        finally:
            self._wrapped.base_model.disable_adapter_layers()


def adapter_folder(path: str | Path) -> Path:
    """The folder of a PEFT adapter, checked: a run stands for its own adapter, and pickles are refused."""
    folder = Path(path)
    if is_file(folder / "plan.json") and (folder / "adapter").is_dir():
        folder = folder / "adapter"
    if is_folder(folder) and not (folder / WEIGHTS).is_file() and any(folder.glob("adapter_model*.bin")):
        raise InputError(
            f"{folder} holds its adapter as a pickle, which may run code when it is read; allowed is {WEIGHTS}: save it "
            "again with safe_serialization=True."
        )
    for name in (CONFIG, WEIGHTS):
        if not is_file(folder / name):
            raise InputError(
                f"{folder} holds no {name}: give the folder of a PEFT LoRA adapter, or a run that has one."
            )
    return folder


def refuse_changed_base(config: Mapping[str, Any], path: Path) -> None:
    """Raise `InputError` for an adapter whose loading changes the weights or the layers of the base that others share."""
    start = config.get("init_lora_weights", True)
    said = []
    if not (start is None or isinstance(start, bool) or str(start).lower() in _LEAVES_BASE):
        said.append(f"init_lora_weights {plain(start)[:60]!r}")
    if config.get("layer_replication"):
        said.append("layer_replication")
    if config.get("kasa_config") is not None:
        said.append("kasa_config")
    if said:
        raise InputError(
            f"the adapter {path} changes its base as it is loaded ({', '.join(said)}): a bench needs one that leaves it "
            "alone, such as PEFT's path_initial_model_for_weight_conversion makes of a start that moves the base."
        )
    tokens = config.get("alora_invocation_tokens")
    if tokens is not None and not (isinstance(tokens, list) and tokens and all(type(one) is int for one in tokens)):
        raise InputError(
            f"{path / CONFIG} holds alora_invocation_tokens that are no list of token ids: save the adapter again."
        )


@dataclass(frozen=True, slots=True)
class _Before:
    """The modules of a model before an adapter comes, and those of its tensors that a file could write over."""

    modules: list[tuple[Any, dict[str, Any]]]
    tensors: list[tuple[Any, Any]]

    @classmethod
    def of(cls, model: Any, shapes: set[tuple[int, ...]]) -> _Before:
        tensors = [*model.parameters(), *model.buffers()]
        held = [(one, one.detach().clone()) for one in tensors if tuple(one.shape) in shapes]
        return cls([(module, dict(module._modules)) for module in model.modules()], held)

    def changed_shapes(self) -> set[tuple[int, ...]]:
        """The shapes of the tensors that do not hold what they held."""
        return {tuple(kept.shape) for one, kept in self.tensors if not one.equal(kept)}

    def restore(self, model: Any, name: str) -> None:
        """Put back modules and tensors, as if the adapter `name` had never come."""
        import torch
        from peft.tuners.tuners_utils import BaseTunerLayer

        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for module in model.modules():
                if isinstance(module, BaseTunerLayer):
                    with suppress(Exception):  # a layer that was made by halves goes with its parent's old children
                        module.delete_adapter(name)
            for one, kept in self.tensors:
                one.copy_(kept)
        for module, children in self.modules:
            module._modules.clear()
            module._modules.update(children)
        # what PEFT notes of its adapters: on its wrapper, or on the bare model where it had not come to a wrapper
        known = getattr(model, "peft_config", None)
        if isinstance(known, dict):
            known.pop(name, None)
            if not known:
                vars(model).pop("peft_config", None)
