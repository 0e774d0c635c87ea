"""The plan of a training run: every number in it, where it came from and why, before anything is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from geonb.derive.context import Calibration
from geonb.derive.derivation import Derivation
from geonb.errors import InputError
from geonb.plan.target import TargetPlan
from geonb.records import Record, decode_table

SCHEMA = 1

__all__ = ["SCHEMA", "Plan", "TargetPlan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Record):
    """A resolved training plan in three buckets; equal model bytes, data bytes, options and version give equal bytes.

    Floats carry nine significant digits, measured ones three; no time, host or random state is in it. The keys of the
    dict fields are those that `build_plan` writes; `targets` lists every analysed matrix, chosen or not.
    """

    schema: int
    geonb_version: str
    model: dict[str, Any]  # source, name, architecture, digest, parameters, context_length
    data: dict[str, Any]  # path, digest, n_examples, n_tokens, n_cut, template
    evaluation: dict[str, Any]  # path or None, digest or None
    seed: int
    seed_source: str
    output: str
    sequence_length: int  # tokens
    sequence_length_source: str
    split: dict[str, Any]  # method, n_train, n_eval, resolves (nats or None), because
    batch: dict[str, Any]  # size, micro, accumulation, source
    horizon: dict[str, Any]  # steps, epochs, source
    controller: dict[str, Any]  # name, basis, budget, sides, momentum
    targets: tuple[TargetPlan, ...]
    derivations: tuple[Derivation, ...]
    calibration: Calibration | None
    derived_now: dict[str, Any]
    measured_during_training: dict[str, str]
    verified_after_training: dict[str, str]
    options: dict[str, Any]

    # what the dict fields hold at least, for every reader of a plan file and in its schema; a baseline's controller adds a rate
    TABLES: ClassVar[dict[str, dict[str, Any]]] = {
        "model": {
            "source": str, "name": str, "architecture": str, "digest": str, "parameters": int, "context_length": int | None,
        },
        "data": {"path": str, "digest": str, "n_examples": int, "n_tokens": int, "n_cut": int, "template": str},
        "evaluation": {"path": str | None, "digest": str | None},
        "split": {"method": str, "n_train": int, "n_eval": int, "resolves": float | None, "because": str},
        "batch": {
            "size": int, "micro": int, "accumulation": int, "source": str, "micro_source": str, "model_bytes": int,
            "example_bytes": int,
        },
        "horizon": {"steps": int, "epochs": float, "source": str},
        "controller": {"name": str, "basis": str, "budget": str, "sides": str},
    }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The plan that `data` describes, whole: a part that lacks what every reader of plans needs is an `InputError`."""
        from geonb.derive.table import FIFTEEN

        found = super(Plan, cls).from_dict(data)
        parts = {}
        for name, hints in cls.TABLES.items():
            try:
                parts[name] = decode_table(getattr(found, name), hints)
            except TypeError as error:
                raise InputError(
                    f"Plan was given the field {name!r}; allowed is {error}: is this file of another version?"
                ) from None
        keys = {derivation.key for derivation in found.derivations}
        missing = [key for module in FIFTEEN if (key := module.__name__.rpartition(".")[2]) not in keys]
        if missing:
            raise InputError(
                f"Plan was given derivations without {missing[0]!r}; allowed are all fifteen: is this file of another version?"
            )
        return dataclasses.replace(found, **parts)

    def chosen(self) -> tuple[TargetPlan, ...]:
        """The matrices that will be trained, in the order of the checkpoint."""
        return tuple(target for target in self.targets if target.chosen)

    def skipped(self) -> tuple[TargetPlan, ...]:
        """The matrices that were analysed and will not be trained, each with its reason."""
        return tuple(target for target in self.targets if not target.chosen)

    @property
    def n_parameters(self) -> int:
        """How many numbers the run trains."""
        return sum(target.parameters for target in self.targets)

    def derivation(self, key: str | int) -> Derivation:
        """One of the fifteen, by its number or by its key (`"lora_rank"`)."""
        for found in self.derivations:
            if key in (found.number, found.key):
                return found
        raise KeyError(key)

    def summary(self) -> str:
        return (
            f"Plan({self.model['name']} on {self.data['path']}: {len(self.chosen())} matrices, "
            f"{self.n_parameters:,} parameters, {self.horizon['steps']:,} steps of {self.batch['size']}, "
            f"seed {self.seed})"
        )

    def to_text(self, *, explain: bool = False) -> str:
        """The whole plan for a shell; with `explain` also the derivations in full and the table of matrices."""
        from geonb.plan.text import plan_text

        return plan_text(self, explain=explain)

    def to_html(self) -> str:
        """The plan as self-contained, escaped HTML with small pictures."""
        from geonb.plan.page import plan_html

        return plan_html(self)
