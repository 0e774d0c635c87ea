"""Verification after training: bounds, reload, behaviour and retention of the saved adapter (MATH.md section 7)."""

from __future__ import annotations

import math
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geonb.adapters.bounded import merged
from geonb.geometry.cka import debiased_linear_cka
from geonb.geometry.measurement import Measurement
from geonb.geometry.singular_values import singular_values
from geonb.geometry.statistics import mcnemar
from geonb.train.example_losses import ExampleLosses, examples_digest, six_digits
from geonb.train.gates import FAILED, PASSED, UNMEASURED, Gate, LayerBound, Verification, verdict
from geonb.train.objective import Evaluation, evaluate, to_tensors
from geonb.train.probes import ProbeResult, probe
from geonb.train.run_folder import RunFolder
from geonb.train.samples import continuations, samples
from geonb.train.training import Training

# relative room for float32 round-off of a norm that was kept a hair inside its bound
_BOUND_ROOM = 1e-5
# largest logit gap of the merged weights, relative to the logits' own spread, by dtype of the weights
_MERGE_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 2e-2}
# a continuation in which more than a third of the 4-grams repeat reads as a loop
_LOOP = 1 / 3


def verify(training: Training, adapter_folder: Path | None = None, run: RunFolder | None = None) -> Verification:
    """Measure the adapter that stands in the model (the best one) against the base model, and judge it.

    `adapter_folder` is the saved adapter, which is loaded again through PEFT; without it a temporary copy is written.
    In `run` the losses of the single examples and a few continuations to read are kept; without it they are not.
    """
    equipment = training.equipment
    layers = _layer_bounds(training)
    adapted = evaluate(equipment.model, equipment.evaluation, pad=equipment.pad, device=equipment.device)
    adapted_retention = equipment.evaluate_retention()
    adapted_probe = probe(equipment.runtime, equipment.prompts)
    adapted_logits, adapted_states = _logits_and_states(training)
    written = continuations(equipment) if run is not None else []
    with training.base():
        base = evaluate(equipment.model, equipment.evaluation, pad=equipment.pad, device=equipment.device)
        base_retention = equipment.evaluate_retention()
        base_probe = probe(equipment.runtime, equipment.prompts)
        base_logits, base_states = _logits_and_states(training)
        base_written = continuations(equipment) if run is not None else []
    random_states = _random_control(training)

    task = training.schedule.paired(adapted.per_example, base.per_example)
    retained = _retention(training, adapted_retention, base_retention)
    cka = _cka(base_states, adapted_states, random_states)
    gates = (
        _bound_gate(layers),
        _weyl_gate(layers),
        _differs_gate(base_logits, adapted_logits),
        _merge_gate(training, adapted_logits),
        _reload_gate(training, adapted_logits, adapter_folder),
        _improvement_gate(task),
        _degeneration_gate(base_probe, adapted_probe),
        _cka_gate(cka),
        _retention_gate(retained, task),
    )
    if run is not None:
        _example_losses(training, base, adapted, base_retention, adapted_retention).save(run.losses_path)
        samples(equipment, base_written, written).save(run.samples_path)
    return Verification(
        verdict=verdict(gates),
        gates=gates,
        layers=layers,
        task=task,
        retention=retained,
        base_loss=base.loss,
        adapted_loss=adapted.loss,
        base_retention=base_retention.loss if base_retention else None,
        adapted_retention=adapted_retention.loss if adapted_retention else None,
        cka=cka,
        repetition=_repetition(training, base_probe, adapted_probe),
    )


# -- what is measured -------------------------------------------------------------------------------------------------


def _layer_bounds(training: Training) -> tuple[LayerBound, ...]:
    """Weyl and rank-r interlacing of every adapted matrix, from the merged float64 spectrum."""
    refs = {ref.name: ref for ref in training.equipment.checkpoint.refs}
    found = []
    for matrix in training.equipment.matrices:
        weight = training.equipment.checkpoint.read(refs[matrix.name]).double()
        with torch.no_grad():
            left, right = (factor.detach().cpu().double() for factor in matrix.factors())
        before = singular_values(weight.numpy(), tier="float64-gram")
        after = singular_values((weight + left @ right).numpy(), tier="float64-gram")
        norm, rank = matrix.factors.product_norm(), right.shape[0]
        # sqrt(c u) s_1 is what the Gram route guarantees at the small end
        room = 1e-7 * float(before[0])
        interlacing = bool(
            np.all(after[rank:] <= before[: len(before) - rank] + room)
            and np.all(before[rank:] <= after[: len(after) - rank] + room)
        )
        found.append(
            LayerBound(
                name=matrix.name,
                norm=norm,
                budget=matrix.budget,
                over_sigma_k=norm / matrix.sigma_k,
                largest_shift=float(np.abs(after - before).max()),
                interlacing=interlacing,
            )
        )
    return tuple(found)


@torch.no_grad()
def _logits_and_states(training: Training, limit: int = 32) -> tuple[Tensor, list[np.ndarray]]:
    """Last-token logits, and each layer's mean-pooled hidden states, on up to `limit` evaluation examples."""
    equipment = training.equipment
    logits, states = [], []
    for index in range(min(limit, len(equipment.evaluation))):
        batch = to_tensors(equipment.evaluation, [index], equipment.pad, equipment.device)
        output = equipment.model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True
        )
        logits.append(output.logits[0, -1].float().cpu())
        states.append(np.stack([state[0].mean(0).double().cpu().numpy() for state in output.hidden_states[1:]]))
    return torch.stack(logits), list(np.stack(states, axis=1))


def _random_control(training: Training) -> list[np.ndarray]:
    """Hidden states under a random adapter of the same rank and norm in every matrix; the real factors come back."""
    generator = np.random.default_rng(training.plan.seed)
    adapters, saved = training.adapters, {}
    try:
        for path, adapter in adapters.items():
            saved[path] = adapter.factors
            left, right = (factor.detach() for factor in adapter.factors())
            norm = adapter.factors.product_norm()
            adapter.factors = _RandomFactors(  # type: ignore[assignment]
                left, right, norm, generator
            )
        return _logits_and_states(training)[1]
    finally:
        for path, factors in saved.items():
            adapters[path].factors = factors


class _RandomFactors(torch.nn.Module):
    """Gaussian factors scaled to a given ||BA||_2."""

    def __init__(self, left: Tensor, right: Tensor, norm: float, generator: np.random.Generator) -> None:
        super().__init__()
        wide = np.linalg.qr(generator.standard_normal((right.shape[1], right.shape[0])))[0].T
        tall = generator.standard_normal(tuple(left.shape))
        tall *= norm / max(np.linalg.norm(tall, 2), 1e-300)
        self.pair = (
            torch.from_numpy(tall).to(left.device, torch.float32),
            torch.from_numpy(wide).to(left.device, torch.float32),
        )

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.pair


def _cka(base: list, adapted: list, random: list) -> dict[str, Measurement]:
    n = len(base[0])
    found = {}
    if n < 4:
        return found
    for layer, (before, after, control) in enumerate(zip(base, adapted, random, strict=True)):
        found[f"layer {layer}"] = Measurement(
            value=float(debiased_linear_cka(before, after)),
            interval=None,
            n=n,
            null=float(debiased_linear_cka(before, control)),
            unit="debiased linear CKA",
            operator="mean-pooled hidden states, float64, null: random adapter of equal rank and norm",
        )
    return found


def _retention(training: Training, adapted: Evaluation | None, base: Evaluation | None) -> Measurement | None:
    if adapted is None or base is None:
        return None
    return training.schedule.paired(adapted.per_example, base.per_example)


def _example_losses(
    training: Training,
    base: Evaluation,
    adapted: Evaluation,
    base_retention: Evaluation | None,
    adapted_retention: Evaluation | None,
) -> ExampleLosses:
    equipment = training.equipment
    return ExampleLosses(
        evaluation_digest=examples_digest(equipment.evaluation),
        base=six_digits(base.per_example),
        adapted=six_digits(adapted.per_example),
        retention_digest=examples_digest(equipment.retention) if base_retention else None,
        base_retention=six_digits(base_retention.per_example) if base_retention else (),
        adapted_retention=six_digits(adapted_retention.per_example) if adapted_retention else (),
    )


def _repetition(training: Training, base: ProbeResult, adapted: ProbeResult) -> Measurement:
    paired = training.schedule.paired(adapted.repetition, base.repetition)
    return Measurement(
        value=paired.value,
        interval=paired.interval,
        n=paired.n,
        null=0.0,
        unit="share of repeated 4-grams",
        operator="greedy continuations, adapter minus base, " + paired.operator,
    )


# -- the gates --------------------------------------------------------------------------------------------------------


def _gate(name: str, passed: bool, value, threshold, because: str, *, required: bool = True) -> Gate:
    return Gate(
        name=name,
        status=PASSED if passed else FAILED,
        required=required,
        value=value,
        threshold=threshold,
        because=because,
    )


def _bound_gate(layers: tuple[LayerBound, ...]) -> Gate:
    bounded = [layer for layer in layers if math.isfinite(layer.budget)]
    if not bounded:
        return Gate(
            name="spectral bound",
            status=UNMEASURED,
            required=False,
            value=None,
            threshold=None,
            because="this controller promises no bound",
        )
    worst = max(bounded, key=lambda layer: layer.norm / layer.budget)
    share = worst.norm / worst.budget
    return _gate(
        "spectral bound",
        share <= 1 + _BOUND_ROOM,
        share,
        1.0,
        f"largest ||dW||_2 / R of {len(bounded)} matrices, in {worst.name}",
    )


def _weyl_gate(layers: tuple[LayerBound, ...]) -> Gate:
    broken = [layer.name for layer in layers if not layer.interlacing]
    excess = max(layer.largest_shift / max(layer.norm, 1e-300) for layer in layers)
    # a norm of 1e-12 against sigma_max of 1 leaves only round-off to compare
    fine = all(layer.largest_shift <= layer.norm * (1 + _BOUND_ROOM) + 1e-6 * layer.budget for layer in layers)
    because = "largest shift of a singular value over ||dW||_2 (Weyl), and rank-r interlacing, from the merged spectra"
    return _gate("weyl and interlacing", fine and not broken, excess, 1.0, because)


def _differs_gate(base: Tensor, adapted: Tensor) -> Gate:
    gap = float((base - adapted).abs().max())
    return _gate("adapter acts", gap > 0, gap, 0.0, f"largest logit change against the base model, {len(base)} prompts")


def _merge_gate(training: Training, adapted: Tensor) -> Gate:
    dtype = next(training.equipment.model.parameters()).dtype
    tolerance = _MERGE_TOLERANCE.get(training.equipment.runtime.dtype, _MERGE_TOLERANCE.get(dtype, 1e-4))
    with merged(training.adapters):
        together, _ = _logits_and_states(training)
    gap = float((together - adapted).abs().max() / adapted.std())
    return _gate(
        "merged = adapter", gap <= tolerance, gap, tolerance, "largest logit gap of W + BA over the logits' spread"
    )


def _reload_gate(training: Training, adapted: Tensor, folder: Path | None) -> Gate:
    """Load the saved files through PEFT onto a fresh base model, with warnings as errors, and compare logits."""
    from peft import PeftModel

    from geonb.models.runtime import TorchRuntime

    equipment = training.equipment
    with tempfile.TemporaryDirectory() as temporary:
        saved = folder or equipment.save(Path(temporary), training.products())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fresh = TorchRuntime.load(equipment.checkpoint, device=str(equipment.device))
            fresh.model = PeftModel.from_pretrained(fresh.model, str(saved)).eval()
    complaints = [str(item.message) for item in caught if "adapter" in str(item.message).lower()]
    logits = []
    with torch.no_grad():
        for index in range(len(adapted)):
            batch = to_tensors(equipment.evaluation, [index], equipment.pad, equipment.device)
            output = fresh.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            logits.append(output.logits[0, -1].float().cpu())
    gap = float((torch.stack(logits) - adapted).abs().max())
    exact = equipment.runtime.dtype == torch.float32
    tolerance = 0.0 if exact and equipment.device.type == "cpu" else 1e-3
    because = "largest logit gap of the saved files, loaded by PEFT onto a fresh base model"
    if complaints:
        because = f"PEFT complained: {complaints[0]}"
    return _gate("reload through PEFT", gap <= tolerance and not complaints, gap, tolerance, because)


def _improvement_gate(task: Measurement) -> Gate:
    assert task.interval is not None
    return _gate(
        "task improved", task.interval[1] < 0, task.interval[1], 0.0, f"upper end of the paired interval: {task!r}"
    )


def _degeneration_gate(base: ProbeResult, adapted: ProbeResult) -> Gate:
    """Loops are counted per prompt; the adapter fails when it adds more than chance explains (paired McNemar)."""
    before, after = base.repetition > _LOOP, adapted.repetition > _LOOP
    added, mended = int((after & ~before).sum()), int((before & ~after).sum())
    p = mcnemar(added, mended)
    failed = added > mended and p < 0.05
    return _gate(
        "no degeneration",
        not failed,
        p,
        0.05,
        f"{added} of {len(before)} prompts loop only with the adapter, {mended} only without (paired McNemar)",
    )


def _cka_gate(cka: dict[str, Measurement]) -> Gate:
    if not cka:
        return Gate(
            name="representation kept",
            status=UNMEASURED,
            required=False,
            value=None,
            threshold=None,
            because="debiased CKA needs four examples",
        )
    layer, worst = min(cka.items(), key=lambda item: item[1].value)
    null = worst.null if worst.null is not None else 0.0
    return _gate(
        "representation kept",
        worst.value >= null,
        worst.value,
        null,
        f"lowest debiased CKA with the base ({layer}, n = {worst.n}) against a random adapter of equal norm and rank",
        required=False,
    )


def _retention_gate(retained: Measurement | None, task: Measurement) -> Gate:
    if retained is None or retained.interval is None:
        return Gate(
            name="retention",
            status=UNMEASURED,
            required=False,
            value=None,
            threshold=None,
            because="no held-out base text was given",
        )
    return _gate(
        "retention",
        retained.value <= -task.value,
        retained.value,
        -task.value,
        f"loss added on held-out base text against the loss gained on the task: {retained!r}",
        required=False,
    )
