"""The three buckets: what is fixed now, what the run will measure, and what is verified once it has ended."""

from __future__ import annotations

from typing import Any

from geonb.derive.derivation import shown
from geonb.plan.options import PlanOptions
from geonb.plan.target import TargetPlan


def derived_now(
    *,
    seed: int,
    output: str,
    sequence_length: int,
    split: str,
    chosen: tuple[TargetPlan, ...],
    batch: dict[str, Any],
    horizon: dict[str, Any],
) -> dict[str, Any]:
    """Fixed before the first step."""
    return {
        "seed": str(seed),
        "output": output,
        "sequence length": sequence_length,
        "evaluation split": split,
        "target matrices": len(chosen),
        "ranks": shown({target.name: target.rank for target in chosen}),
        "trained parameters": sum(target.parameters for target in chosen),
        "batch": batch["size"],
        "steps": horizon["steps"],
    }


def measured_during_training(options: PlanOptions) -> dict[str, str]:
    """What the controller and the monitors will measure, and how."""
    found = {
        "eta_ceiling": "R of each matrix: a step may never leave its ball",
        "eta_sps": "Polyak's step of the same linear model, from the batch loss and the averaged gradient",
        "eta_weyl": "sigma_k (1 - t/T) / sqrt(T) of each matrix",
        "eta_step": "the smallest of the three, and which one bound",
        "gradient noise": "debiased noise scale and signal to noise, from the micro-batches of a step",
        "budget used": "||dW||_2 / R and ||dW||_2 / sigma_k of each matrix",
        "stopping certificate": "five conditions on the evaluation split, each met, not met or unmeasured",
    }
    if options.controller != "frank-wolfe":
        found["eta_ceiling"] = "sigma_k_min / sigma_max over sqrt(N), or its form per layer"
        found["eta_weyl"] = "sigma_k over the length of the update"
    if options.entropy_reg:
        found["token entropy"] = "mean entropy of the predictions, held near the base model's by --entropy-reg"
    if options.dim_monitor:
        found["intrinsic dimension"] = "of hidden states on the evaluation split, layer by layer"
    if options.topo_monitor:
        found["topology"] = "connected components of hidden states on the evaluation split"
    return found


def verified_after_training(options: PlanOptions) -> dict[str, str]:
    """The gates after the last step; required ones must pass, and an unmeasured one has not."""
    found = {
        "spectral bounds": "||dW||_2 <= R, Weyl and interlacing for every matrix",
        "task": "loss on the evaluation split against the loss before training, paired bootstrap",
        "retention": "loss on held-out general text against the base model, paired bootstrap",
        "representation": "debiased CKA per layer beside that of a random adapter of equal norm and rank",
        "degeneration": "repetition and end-of-text rate on fixed prompts against the base model, paired McNemar",
        "wiring": "logits differ from the base; merged and reloaded weights give the adapter's logits",
    }
    if options.benchmark:
        found["benchmark"] = f"the {options.benchmark} suite before and after"
    return found
