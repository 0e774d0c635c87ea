"""Any PEFT LoRA adapter, whoever wrote it, held against its base matrices and against a random adapter of its size."""

from __future__ import annotations

import hashlib
import math
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geonb.adapters.foreign import (
    Finding,
    Found,
    Pairs,
    add_finding,
    made_finding,
    matching_ref,
    number,
    open_base,
    read_config,
    read_pairs,
)
from geonb.geometry.low_rank import product_singular_values
from geonb.geometry.spectrum import Spectrum
from geonb.models.checkpoint import Checkpoint
from geonb.models.geometry import MatrixGeometry, Progress, stream_geometry
from geonb.models.matrix_ref import MatrixRef
from geonb.record_tables import table_html
from geonb.records import Record, plain

_COLUMNS = ("matrix", "rank", "rank used", "scale", "||dW||_2", "/ sigma_k", "/ random")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterLayer(Record):
    """One matrix's dW = scale B A: its size, the rank it uses, and both yardsticks; nan where it is not finite."""

    name: str  # the module's path, or "path.parameter[expert]"
    role: str | None  # None where no base matrix was found
    layer: int | None
    shape: tuple[int, int]  # (out, in)
    rank: int  # rows of A
    scale: float  # as the config declares it
    norm: float  # ||dW||_2
    frobenius: float
    rank_used: float  # exp of the entropy of dW's energies
    null_norm: float  # mean spectral norm of random adapters of this shape, rank and Frobenius norm
    null_interval: tuple[float, float]  # mean -+ 2 standard deviations of those draws
    sigma_k: float | None
    over_sigma_k: float | None
    sigma_max: float | None
    over_sigma_max: float | None
    finite: bool
    moved: bool  # dW is not zero


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterAudit(Record):
    """All matrices of an adapter, what was found beside them, and whether its scale stays inside its base's."""

    folder: str
    base: str | None  # the checkpoint that was measured
    peft_type: str
    declared_rank: int | None
    declared_alpha: float | None
    scale_rule: str  # "alpha / r" or "alpha / sqrt(r)"
    layers: tuple[AdapterLayer, ...]
    findings: tuple[Finding, ...]
    scale_verdict: str  # "inside", "beyond", "unmeasured", "unmoved" or "broken"
    because: str
    n_parameters: int  # stored numbers of the whole file

    def summary(self) -> str:
        return f"AdapterAudit({self.folder!r}, {len(self.layers)} matrices, {self.scale_verdict}: {self.because})"

    def _rows(self) -> list[list[Any]]:
        random = [one.norm / one.null_norm if one.null_norm > 0 else None for one in self.layers]
        return [
            [one.name, one.rank, one.rank_used, one.scale, one.norm, one.over_sigma_k, ratio]
            for one, ratio in zip(self.layers, random, strict=True)
        ]

    def to_text(self) -> str:
        cells = [[f"{x:.4g}" if isinstance(x, float) else str(x or "-") for x in row] for row in self._rows()]
        widths = [max(map(len, column)) for column in zip(_COLUMNS, *cells, strict=True)]
        declared = f"r = {self.declared_rank}, alpha = {self.declared_alpha}, scale {self.scale_rule}"
        lines = [f"{self.folder}: {self.peft_type}, {declared}, {self.n_parameters} parameters, base {self.base}"]
        for name, *numbers in [_COLUMNS, *cells]:
            columns = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
            lines.append("  ".join(["", name.ljust(widths[0]), *columns]))
        lines += [f"  {one.kind}: {one.subject}: {one.because}" for one in self.findings]
        lines.append(f"{self.scale_verdict}: {self.because}")
        # names come from a stranger's file, and a terminal obeys control characters
        return "\n".join(map(plain, lines))

    def to_html(self) -> str:
        findings = [[one.kind, one.subject, one.because] for one in self.findings]
        said = table_html(["finding", "about", "because"], [[self.scale_verdict, self.folder, self.because], *findings])
        return table_html(_COLUMNS, self._rows(), caption=f"{self.folder} on {self.base}") + said


def audit_adapter(
    folder: str | Path, *, base: str | Path | Checkpoint | None = None, seed: int = 0, progress: Progress | None = None
) -> AdapterAudit:
    """Measure every dW = s B A of a PEFT LoRA adapter against its base matrix and against a random adapter.

    s = alpha / r (Hu et al. 2021) or alpha / sqrt(r) (rsLoRA: Kalajdzievski 2023); B: (out, r), A: (r, in); norms are in
    the units of the weights, ratios have none. `base` is a folder, hub id, "embedded" or open checkpoint; without it the
    config's own base is used where that is "embedded" or a local folder, and nothing is downloaded. Raises `InputError`
    where the folder holds no readable LoRA adapter or a given base cannot be opened; all else is a finding.

    >>> audit_adapter("my-adapter", base="embedded").scale_verdict  # doctest: +SKIP
    'inside'
    """
    folder = Path(folder)
    config, found = read_config(folder), Found()
    pairs, count = read_pairs(folder, config, found)
    checkpoint, unopened = open_base(base, config)
    spectra = {} if checkpoint is None else _spectra(checkpoint, pairs, found, progress)
    layers = tuple(_layer(name, *pair, spectra.get(name), seed) for name, pair in pairs.items())
    add_finding(found, "problem", "dW holds NaN or infinity", *(one.name for one in layers if not one.finite))
    unmoved = [one.name for one in layers if not one.moved]
    add_finding(found, "note", "lora_B, lora_A or the scale is zero, so dW = 0: this matrix never moved", *unmoved)
    made = (made_finding(kind, because, subjects) for (kind, because), subjects in found.items())
    findings = tuple(sorted(made, key=lambda one: one.kind != "problem"))
    verdict, because = _judge(layers, findings, unopened)
    rank = number(config.get("r"))
    return AdapterAudit(
        folder=str(folder),
        base=None if checkpoint is None else checkpoint.source,
        peft_type="LORA",
        declared_rank=None if rank is None else int(rank),
        declared_alpha=number(config.get("lora_alpha")),
        scale_rule="alpha / sqrt(r)" if config.get("use_rslora") else "alpha / r",
        layers=layers,
        findings=findings,
        scale_verdict=verdict,
        because=because,
        n_parameters=count,
    )


def random_norms(shape: tuple[int, int], rank: int, *, frobenius: float, seed: int = 0, name: str = "", draws: int = 5):
    """Spectral norms of `draws` random adapters: B (out, r) and A (r, in) Gaussian, ||BA||_F scaled to `frobenius`.

    ||BA||_2 = ||R_B R_A^T||_2, and the triangle R of a Gaussian m x r matrix has independent entries: chi with m - i
    degrees of freedom at place i of the diagonal, normal above it (Bartlett 1933); so no large matrix is drawn. Each
    value lies in [frobenius / sqrt(r), frobenius], in the units of `frobenius`. Raises nothing.

    >>> random_norms((64, 32), 1, frobenius=2.0)
    array([2., 2., 2., 2., 2.])
    """
    generator = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest(), "big"))
    norms = np.empty(draws)
    for draw in range(draws):
        triangles = []
        for size in shape:
            kept = np.arange(min(size, rank))
            triangles.append(np.triu(generator.standard_normal((len(kept), rank)), 1))
            triangles[-1][kept, kept] = np.sqrt(generator.chisquare(size - kept))
        values = np.linalg.svd(triangles[0] @ triangles[1].T, compute_uv=False)
        norms[draw] = frobenius * (values[0] / np.linalg.norm(values))
    return norms


def _spectra(
    checkpoint: Checkpoint, pairs: Pairs, found: Found, progress: Progress | None
) -> dict[str, MatrixGeometry]:
    """The geometry of every matrix that a pair changes, by the pair's name."""
    matched: dict[str, MatrixRef] = {}
    for name, (left, right, _) in pairs.items():
        shape = len(left), right.shape[1]
        ref = matching_ref(checkpoint.refs, name, shape)
        if ref is None:
            add_finding(found, "problem", f"matches no matrix of {checkpoint.source}", name)
        elif ref.shape != shape:
            add_finding(
                found, "problem", f"makes a {shape} change of a {ref.shape} matrix of {checkpoint.source}", name
            )
        else:
            matched[name] = ref
    refs = {ref.name: ref for ref in matched.values()}
    spectra = {one.ref.name: one for one in stream_geometry(checkpoint, refs=tuple(refs.values()), progress=progress)}
    return {name: spectra[ref.name] for name, ref in matched.items()}


def _layer(name: str, left: Any, right: Any, scale: float, base: MatrixGeometry | None, seed: int) -> AdapterLayer:
    left, right = left.double().numpy(), right.double().numpy()
    shape, values = (len(left), right.shape[1]), np.full(1, math.nan)
    if np.isfinite(left).all() and np.isfinite(right).all():
        # float64 factors can overflow in their product; a norm beyond float64 is then reported as not finite
        size = [float(np.abs(factor).max()) or 1.0 for factor in (left, right)]
        with np.errstate(over="ignore"):
            values = product_singular_values(left / size[0], right / size[1]) * abs(scale) * size[0] * size[1]
    with np.errstate(over="ignore"):
        frobenius = float(np.linalg.norm(values))
    finite = math.isfinite(frobenius)
    norm, frobenius = (float(values[0]), frobenius) if finite else (math.nan, math.nan)
    draws = random_norms(shape, len(right), frobenius=frobenius, seed=seed, name=name)
    mean, spread = float(draws.mean()), 2 * float(draws.std(ddof=1))
    number = re.search(r"\.(\d{1,9})\.", name)
    k, top = (None, None) if base is None else (base.sigma_k, base.sigma_max)
    return AdapterLayer(
        name=name,
        role=None if base is None else base.ref.role,
        layer=base.ref.layer if base is not None else int(number[1]) if number else None,
        shape=shape,
        rank=len(right),
        scale=scale,
        norm=norm,
        frobenius=frobenius,
        rank_used=Spectrum.of(values).effective_rank if finite else math.nan,
        null_norm=mean,
        null_interval=(mean - spread, mean + spread),
        sigma_k=k,
        over_sigma_k=_over(norm, k),
        sigma_max=top,
        over_sigma_max=_over(norm, top),
        finite=finite,
        moved=norm != 0,
    )


def _over(norm: float, sigma: float | None) -> float | None:
    return None if sigma is None else norm / sigma if sigma > 0 else math.inf if norm > 0 else 0.0


def _judge(layers: tuple[AdapterLayer, ...], findings: tuple[Finding, ...], unopened: str) -> tuple[str, str]:
    problems = [one for one in findings if one.kind == "problem"]
    if problems:
        more = f"; problems of other kinds: {len(problems) - 1}" if len(problems) > 1 else ""
        return "broken", f"{problems[0].subject}: {problems[0].because}{more}."
    moved = [one for one in layers if one.moved]
    if not moved:
        because = f"dW is zero in all {len(layers)} matrices: the adapter changes nothing."
        return ("unmoved", because) if layers else ("unmeasured", "the file holds no pair that can be measured.")
    ratio = statistics.median(one.norm / one.null_norm for one in moved)
    random = f"the median ||dW||_2 is {ratio:.3g} times that of a random adapter of the same Frobenius norm"
    over = [one.over_sigma_k for one in layers if one.over_sigma_k is not None]
    if not over:
        return "unmeasured", f"{unopened}; {random}."
    beyond = sum((one.over_sigma_max or 0) > 1 for one in layers)
    above = f"||dW||_2 exceeds sigma_k in {sum(x > 1 for x in over)} of {len(layers)} matrices, sigma_max in {beyond}"
    because = f"{above}; its median is {statistics.median(over):.3g} sigma_k, and {random}."
    return "beyond" if beyond else "inside", because
