"""Compose a plan: open, measure, derive the fifteen, and write down what was decided and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from geonb._version import __version__
from geonb.derive import batch_size, lora_rank, target_modules
from geonb.derive.context import Calibration, DerivationContext
from geonb.derive.derivation import shown
from geonb.derive.lora_rank import adapter_bytes
from geonb.derive.rounding import rounded
from geonb.derive.table import derive_all
from geonb.errors import DerivationError, InputError
from geonb.plan.bases import input_basis
from geonb.plan.buckets import derived_now, measured_during_training, verified_after_training
from geonb.plan.horizon import horizon
from geonb.plan.inputs import Inputs, gather
from geonb.plan.memory import Footprint, adapter_limit, footprint, micro_batch
from geonb.plan.options import PlanOptions, bytes_of, default_output, expert_names, role_names
from geonb.plan.plan import SCHEMA, Plan
from geonb.plan.targets import facts_of, target_plans

Progress = Callable[[str], None]


def build_plan(
    model: Any,
    data: str | Path,
    *,
    output: str | Path | None = None,
    eval_data: str | Path | None = None,
    seed: int | None = None,
    seq_length: int | None = None,
    max_steps: int | None = None,
    epochs: int | None = None,
    controller: str = "frank-wolfe",
    basis: str = "tail",
    budget: str = "balanced",
    sides: str = "one",
    memory_budget: int | str | None = None,
    max_rank: int | None = None,
    rank_rule: str = "tail",
    exclude_roles: str | Iterable[str] | None = None,
    target_experts: str | Iterable[str] | None = None,
    entropy_reg: bool = False,
    topo_monitor: bool = False,
    dim_monitor: bool = False,
    benchmark: str | None = None,
    calibrate: bool = True,
    progress: Progress | None = None,
    device: str = "auto",
) -> Plan:
    """Derive the whole training plan of `model` (path, hub id, "embedded" or an open `Checkpoint`) on the file `data`.

    Nothing is written and the model is not changed. `calibrate` loads the model and runs a few dozen examples through
    it for the noise scale, the residual gains and the gradient's rank; without it those are unmeasured. `memory_budget`
    is bytes or text such as "8GB"; `progress` is called with one line of text at each stage. `rank_rule` and
    `exclude_roles` ("q,k" or names of roles) override the derived ranks and targets, and the plan says so; what is
    calibrated is calibrated at the derived ones.

    Raises `InputError` for options that exclude each other or leave nothing to train and for inputs that cannot be
    used, `DerivationError` where no matrix can be targeted.

    >>> plan = build_plan("embedded", "embedded:kjv", max_steps=200)    # doctest: +SKIP
    >>> plan.derivation("lora_rank").because                            # doctest: +SKIP
    """
    tokens = _tokens(target_experts)
    options = PlanOptions(
        output=str(output) if output is not None else None,
        eval_data=str(eval_data) if eval_data is not None else None,
        seed=seed,
        seq_length=seq_length,
        max_steps=max_steps,
        epochs=epochs,
        controller=controller,
        basis=basis,
        budget=budget,
        sides=sides,
        memory_budget=bytes_of(memory_budget),
        max_rank=max_rank,
        rank_rule=rank_rule,
        exclude_roles=role_names(exclude_roles),
        target_experts=tokens,
        entropy_reg=entropy_reg,
        topo_monitor=topo_monitor,
        dim_monitor=dim_monitor,
        benchmark=benchmark,
        calibrate=calibrate,
    ).checked()
    tell = progress or (lambda text: None)
    tell("reading the model's headers and the data")
    inputs = gather(model, data, options, seed=seed)
    experts = expert_names(tokens or None, inputs.checkpoint.refs)
    from geonb.models.runtime import pick_device

    where = str(pick_device(device))
    context = _measure(inputs, options, experts, tell)
    needed = footprint(inputs.checkpoint.refs, inputs.checkpoint.config, sequence_length=inputs.sequence_length)
    context = targeted(context, inputs.checkpoint.source)
    # before the calibration, so that what leaves nothing to train is refused at once
    context, derived = targeted(overridden(context, options), inputs.checkpoint.source), context
    if calibrate:
        # at the derived ranks and targets: a rule or a role can then be changed without measuring again, and the
        # gradient's own rule has something to read
        measured = _calibrate(_choose(derived, needed, options, where), inputs, where, tell)
        context = dataclasses.replace(context, calibration=measured)
    context = _complete(_choose(context, needed, options, where), options)
    tell("deriving the fifteen")
    return _compose(context, inputs, options, data, needed, where)


def _tokens(target_experts: str | Iterable[str] | None) -> tuple[str, ...]:
    if target_experts is None:
        return ()
    parts = target_experts.split(",") if isinstance(target_experts, str) else list(target_experts)
    return tuple(part.strip() for part in parts)


def _measure(inputs: Inputs, options: PlanOptions, experts: tuple[str, ...], tell: Progress) -> DerivationContext:
    """The spectra of every matrix, as facts."""
    from geonb.models.geometry import stream_geometry

    facts = []
    total = len(inputs.checkpoint.refs)
    for geometry in stream_geometry(inputs.checkpoint):
        facts.append(facts_of(geometry))
        tell(f"spectra: {len(facts)} of {total}")
    resolves = inputs.split.resolves
    return DerivationContext(
        matrices=tuple(facts),
        n_train=len(inputs.training),
        n_eval=len(inputs.evaluation),
        resolves=rounded(float(resolves)) if resolves is not None else None,
        controller=options.controller,
        basis=options.basis,
        budget=options.budget,
        sides=options.sides,
        chosen_experts=experts,
        max_rank=options.max_rank,
    )


def overridden(context: DerivationContext, options: PlanOptions) -> DerivationContext:
    """`context` with the rule and the roles that the options put in the place of the derived ones."""
    return dataclasses.replace(context, rank_rule=options.rank_rule, excluded_roles=options.exclude_roles)


def targeted(context: DerivationContext, source: Any) -> DerivationContext:
    """`context` with its targets; `source` names the model where there are none."""
    targets = target_modules.derive(context).value
    if targets:
        return dataclasses.replace(context, targets=targets)
    if context.excluded_roles:
        raise InputError(
            f"--exclude-roles was given {','.join(context.excluded_roles)}, which leaves no matrix of {source} to "
            "train: exclude fewer."
        )
    raise DerivationError(
        f"{source} has no matrix to target: every linear map inside its blocks is zero or has one singular value; "
        "choose another model."
    )


def _choose(context: DerivationContext, needed: Footprint, options: PlanOptions, device: str) -> DerivationContext:
    """The ranks of the targets, within what memory was stated or is there."""
    shapes = {matrix.name: matrix.shape for matrix in context.chosen()}
    limit, source = adapter_limit(
        needed,
        shapes,
        lora_rank.derive(context).value,
        sides=context.sides,
        memory_budget=options.memory_budget,
        device=device,
    )
    context = dataclasses.replace(context, memory_limit=limit, memory_source=source)
    return dataclasses.replace(context, ranks=lora_rank.derive(context).value)


def _calibrate(context: DerivationContext, inputs: Inputs, device: str, tell: Progress) -> Calibration:
    """Load the base model and ask a few examples."""
    from geonb.models.runtime import TorchRuntime
    from geonb.plan.calibrate import calibrate

    tell("calibration: loading the model")
    checkpoint = inputs.checkpoint
    runtime = TorchRuntime.load(checkpoint, device=device)
    refs = {ref.name: ref for ref in checkpoint.refs}
    targets = [target for target in target_plans(context, checkpoint.refs) if target.chosen and target.expert is None]

    def basis_of(target):
        # the directions of a gradient basis are what calibration is for: until then every direction counts
        if target.basis in ("gradient", "full"):
            return None
        return input_basis(target, checkpoint.read(refs[target.name]).double().numpy(), inputs.seed)

    return calibrate(runtime, inputs.training, targets, basis_of, seed=inputs.seed, progress=tell)


def _complete(context: DerivationContext, options: PlanOptions) -> DerivationContext:
    """Batch size, then the horizon that follows from it."""
    size = batch_size.derive(context).value
    found = horizon(n_train=context.n_train, batch_size=size, max_steps=options.max_steps, epochs=options.epochs)
    return dataclasses.replace(context, batch_size=size, horizon=found["steps"], horizon_source=found["source"])


def _compose(
    context: DerivationContext, inputs: Inputs, options: PlanOptions, data: Any, needed: Footprint, device: str
) -> Plan:
    """Everything that was decided, as one record."""
    checkpoint, dataset, parts = inputs.checkpoint, inputs.dataset, inputs.split
    derivations = derive_all(context)
    by_key = {derivation.key: derivation for derivation in derivations}
    targets = target_plans(context, checkpoint.refs, by_key["dropout"])
    chosen = tuple(target for target in targets if target.chosen)
    adapters = adapter_bytes({t.name: t.shape for t in chosen}, {t.name: t.rank for t in chosen}, context.sides)
    micro, fits = micro_batch(context.batch_size, needed, adapters, memory_budget=options.memory_budget, device=device)
    batch = {
        "size": context.batch_size,
        "micro": micro,
        "accumulation": -(-context.batch_size // micro),
        "source": by_key["batch_size"].because,
        "micro_source": fits,
        # a plan can then be asked about another memory budget without its model
        "model_bytes": needed.model,
        "example_bytes": needed.example,
    }
    steps = horizon(
        n_train=context.n_train, batch_size=context.batch_size, max_steps=options.max_steps, epochs=options.epochs
    )
    output = options.output or default_output(checkpoint.name, str(data), inputs.seed)
    split = {
        "method": parts.method,
        "n_train": len(inputs.training),
        "n_eval": len(inputs.evaluation),
        "resolves": context.resolves,
        "because": parts.because,
    }
    return Plan(
        schema=SCHEMA,
        geonb_version=__version__,
        model={
            "source": str(checkpoint.source),
            "name": checkpoint.name,
            "architecture": checkpoint.architecture,
            "digest": checkpoint.digest,
            "parameters": checkpoint.parameters,
            "context_length": checkpoint.context_length,
        },
        data={
            "path": str(data),
            "digest": inputs.data_digest,
            "n_examples": len(dataset.examples),
            "n_tokens": dataset.n_tokens,
            "n_cut": dataset.n_cut,
            "template": dataset.template_source,
        },
        evaluation={"path": options.eval_data, "digest": inputs.evaluation_digest},
        seed=inputs.seed,
        seed_source=inputs.seed_source,
        output=output,
        sequence_length=inputs.sequence_length,
        sequence_length_source=inputs.sequence_length_source,
        split=split,
        batch=batch,
        horizon=rounded(steps),
        controller={
            "name": context.controller,
            "basis": context.basis,
            "budget": context.budget,
            "sides": context.sides,
            "momentum": by_key["momentum"].value,
        },
        targets=targets,
        derivations=derivations,
        calibration=context.calibration,
        derived_now=derived_now(
            seed=inputs.seed,
            output=output,
            sequence_length=inputs.sequence_length,
            split=f"{parts.method}, {shown(split['n_train'])} to train and {shown(split['n_eval'])} to evaluate",
            chosen=chosen,
            batch=batch,
            horizon=steps,
        ),
        measured_during_training=measured_during_training(options),
        verified_after_training=verified_after_training(options),
        options=rounded(options.to_dict()),
    )
