"""What is exported: the open base, the checked adapter, its changes, and the logits that every export is held against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from geonb.models.checkpoint import Checkpoint
from geonb.workbench.bench import Bench, adapter_folder
from geonb.workbench.export.changes import Change, read_changes, refuse_unmergeable
from geonb.workbench.export.folder import quiet
from geonb.workbench.export.gap import Reference, read_reference
from geonb.workbench.export.probes import choose_probes


@dataclass(frozen=True, slots=True)
class Source:
    """A base and an adapter; the model that gave the reference is no longer in memory."""

    checkpoint: Checkpoint
    adapter: Path
    changes: tuple[Change, ...]
    reference: Reference
    device: str

    @classmethod
    def open(
        cls,
        checkpoint: Checkpoint,
        adapter: str | Path,
        *,
        probes: str | Path | None = None,
        device: str = "cpu",
        with_changes: bool = True,
    ) -> Source:
        """Load base and adapter through PEFT in float32, read the factors and the reference logits, and let go of them.

        Raises `InputError` where the adapter does not fit the base, is more than W + scale B A (unless `with_changes` is
        False), or where the probes cannot be read.
        """
        folder = adapter_folder(adapter)
        if with_changes:
            refuse_unmergeable(folder)
        ids, words = choose_probes(checkpoint, checkpoint.load_tokenizer(), folder, probes)
        with quiet():  # PEFT imports quantisation libraries, which talk
            bench = Bench.open(checkpoint, {"adapter": folder}, device=device, dtype="float32")

        def with_it(ids):
            with bench.using("adapter"):
                return bench.runtime.logits(ids)

        def without_it(ids):
            with bench.using(None):
                return bench.runtime.logits(ids)

        reference = read_reference(ids, words, with_it, without_it)
        with bench.using("adapter") as model:
            changes = read_changes(model, checkpoint) if with_changes else ()
        return cls(checkpoint, folder, changes, reference, device)
