"""One base model in memory and any number of PEFT adapters beside it, switched on one at a time.

PEFT applies the adapters, so what is measured here is what its users get.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geonb.adapters.foreign import read_config
from geonb.adapters.patterns import refuse_unsafe_patterns
from geonb.adapters.peft_files import CONFIG, WEIGHTS
from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.models.runtime import TorchRuntime


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
        """Load one more adapter onto the base; the base is not loaded again."""
        from peft import PeftModel

        path = adapter_folder(folder)
        if label in self.adapters:
            raise InputError(f"two adapters were called {label!r}: give each a label of its own.")
        config = read_config(path)
        refuse_unsafe_patterns(config, path / CONFIG)
        name = f"adapter{len(self.adapters)}"  # PEFT allows no dots in a name, and a label is a person's
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                if self._wrapped is None:
                    self._wrapped = PeftModel.from_pretrained(
                        self.runtime.model, str(path), adapter_name=name, is_trainable=False
                    ).eval()
                    # whoever runs the model through the runtime runs it with the adapter that is on
                    self.runtime.model = self._wrapped
                else:
                    self._wrapped.load_adapter(str(path), adapter_name=name, is_trainable=False)
            except Exception as error:  # a stranger's files can make PEFT raise nearly anything
                reason = " ".join(str(error).split())[:200]
                raise InputError(
                    f"the adapter {path} does not fit {self.runtime.checkpoint.source} ({reason}): give the base that it "
                    "was trained on."
                ) from None
        for one in caught:
            # transformers warns of its own old name whenever PEFT asks for it; all else is for the caller
            if (
                "is_gradient_checkpointing" not in str(one.message)
                and "missing adapter keys" not in str(one.message).lower()
            ):
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        missing = [str(one.message) for one in caught if "missing adapter keys" in str(one.message).lower()]
        if missing:
            raise InputError(
                f"the adapter {path} lacks factors that its config promises ({' '.join(missing[0].split())[:160]}): "
                "save it again; PEFT would run without them."
            )
        self.adapters[label] = path

    @contextmanager
    def using(self, label: str | None) -> Iterator[Any]:
        """Inside the block the adapter `label` is on and every other is off; None is the bare base. Yields the model."""
        if label is None:
            if self._wrapped is None:
                yield self.runtime.model
            else:
                with self._wrapped.disable_adapter():
                    yield self._wrapped
            return
        if label not in self.adapters:
            raise InputError(f"there is no adapter {label!r}; loaded are {', '.join(self.adapters) or 'none'}.")
        self._wrapped.set_adapter(f"adapter{self.labels.index(label)}")
        self._wrapped.requires_grad_(False)
        yield self._wrapped


def adapter_folder(path: str | Path) -> Path:
    """The folder of a PEFT adapter, checked: a run stands for its own adapter, and pickles are refused."""
    folder = Path(path)
    if (folder / "plan.json").is_file() and (folder / "adapter").is_dir():
        folder = folder / "adapter"
    if not (folder / WEIGHTS).is_file() and any(folder.glob("adapter_model*.bin")):
        raise InputError(
            f"{folder} holds its adapter as a pickle, which may run code when it is read; allowed is {WEIGHTS}: save it "
            "again with safe_serialization=True."
        )
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder} holds no {name}: give the folder of a PEFT LoRA adapter, or a run that has one."
            )
    return folder
