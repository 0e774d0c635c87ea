"""8 of 15. The batch size: the gradient noise scale where a calibration resolves it, sixteen where it does not."""

from __future__ import annotations

from math import ceil

from geonb.derive.context import DerivationContext
from geonb.derive.derivation import Derivation, Outcome, make

FALLBACK = 16  # a convention: the batch of geonb's own measurements


def compute(*, noise_scale: float | None, n_train: int, fallback: int) -> Outcome:
    """ceil(tr Cov(g) / ||E g||^2) examples, at least 1 and at most all of them; `fallback` where it is unresolved.

    >>> compute(noise_scale=6.2, n_train=100, fallback=16)
    Outcome(used=7, documented=6.2)
    >>> compute(noise_scale=None, n_train=10, fallback=16).used
    10
    """
    wanted = fallback if noise_scale is None else ceil(noise_scale)
    return Outcome(max(1, min(n_train, wanted)), noise_scale)


def derive(context: DerivationContext) -> Derivation:
    """Derivation 8 for this plan."""
    measured = context.calibration
    inputs = {
        "noise_scale": measured.noise_scale if measured is not None and measured.resolved else None,
        "n_train": context.n_train,
        "fallback": FALLBACK,
    }
    beside: dict[str, object] = {"customary": "as many as fit"}
    if measured is not None:
        beside["calibration"] = measured.because
        if measured.noise_scale_interval is not None:
            beside["interval of the noise scale (95 %)"] = measured.noise_scale_interval
        beside["signal to noise ||E g||^2 / tr Cov(g)"] = measured.signal_to_noise
    resolved = inputs["noise_scale"] is not None
    return make(
        compute(**inputs),
        inputs,
        number=8,
        key="batch_size",
        replaces="batch size",
        unit="examples",
        formula=(
            "ceil(tr Cov(g) / (||gbar||^2 - tr Cov(g)/N)), at most n_train"
            if resolved
            else f"{FALLBACK}, at most n_train"
        ),
        source="McCandlish et al. 2018, with the bias of the squared mean removed",
        evidence="conjectural" if resolved else "convention",
        applied=True,
        because=(
            "At the noise scale, doubling the batch and doubling the steps cost the same; the plain estimate saturates "
            "near the number of examples tried, so it is debiased first."
            if resolved
            else (
                "The noise scale was not measured for this plan"
                if measured is None
                else "The mean gradient could not be told from the noise of the examples tried"
            )
            + f", so the customary {FALLBACK} stands in."
        ),
        documented_formula="B_crit = Var(g) / ||E g||^2",
        documented_evidence="conjectural",
        beside=beside,
    )
