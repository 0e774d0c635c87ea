"""Any PEFT LoRA adapter, whoever wrote it, held against its base matrices and against a random adapter of its size."""

from __future__ import annotations

import hashlib
import json
import math
import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geonb.adapters.peft_files import CONFIG, WEIGHTS
from geonb.errors import InputError
from geonb.geometry.low_rank import product_singular_values
from geonb.geometry.spectrum import Spectrum
from geonb.models.checkpoint import Checkpoint
from geonb.models.geometry import MatrixGeometry, Progress, stream_geometry
from geonb.models.matrix_ref import MatrixRef
from geonb.records import Record, table_html

_FACTOR = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.[^.]+)?\.weight")
_PEFT_DEFAULT = 8  # LoraConfig's own r and lora_alpha where the file leaves them out
_MOVES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_COLUMNS = ("matrix", "rank", "rank used", "scale", "||dW||_2", "/ sigma_k", "/ random")
_OTHERS = {  # what a key contains -> what is said of all such keys
    "lora_embedding_": "the factors of an embedding are not measured",
    "lora_magnitude_vector": "DoRA rescales W + dW by this vector; the numbers here are those of dW alone",
    "lora_": "is not a lora_A or lora_B weight, and is not measured",
    "": "is stored whole beside the adapter (modules_to_save or a bias?) and is not measured",
}
_Found = dict[tuple[str, str], list[str]]  # (kind, because) -> subjects: what a thousand tensors share is one finding
_Pairs = dict[str, tuple[Any, Any, float]]  # name -> B, A as tensors, scale


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
class Finding(Record):
    """What is wrong with an adapter ("problem") or should be known when its numbers are read ("note")."""

    kind: str
    subject: str
    because: str


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
        return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)

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
    config, found = _read_config(folder), _Found()
    pairs, count = _read_pairs(folder, config, found)
    checkpoint, unopened = _open_base(base, config)
    spectra = {} if checkpoint is None else _spectra(checkpoint, pairs, found, progress)
    layers = tuple(_layer(name, *pair, spectra.get(name), seed) for name, pair in pairs.items())
    _add(found, "problem", "dW holds NaN or infinity", *(one.name for one in layers if not one.finite))
    unmoved = [one.name for one in layers if not one.moved]
    _add(found, "note", "lora_B, lora_A or the scale is zero, so dW = 0: this matrix never moved", *unmoved)
    made = (_finding(kind, because, subjects) for (kind, because), subjects in found.items())
    findings = tuple(sorted(made, key=lambda one: one.kind != "problem"))
    verdict, because = _judge(layers, findings, unopened)
    rank = _number(config.get("r"))
    return AdapterAudit(
        folder=str(folder),
        base=None if checkpoint is None else checkpoint.source,
        peft_type="LORA",
        declared_rank=None if rank is None else int(rank),
        declared_alpha=_number(config.get("lora_alpha")),
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


def _read_config(folder: Path) -> dict[str, Any]:
    if (folder.suffix == ".bin" and folder.is_file()) or (
        not (folder / WEIGHTS).is_file() and any(folder.glob("adapter_model*.bin"))
    ):
        raise InputError(
            f"{folder} gives the adapter as a .bin file, a pickle, which may run code when it is read; allowed is "
            f"{WEIGHTS}, never pickle: save the adapter again with safe_serialization=True."
        )
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"{folder} holds no {name}: give the folder of a PEFT LoRA adapter.")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise InputError(f"{folder / CONFIG} is not JSON: copy or save the adapter again.") from None
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise InputError(f'{folder / CONFIG} declares peft_type {kind!r}; allowed is "LORA": give a LoRA adapter.')
    return config


def _read_pairs(folder: Path, config: Mapping[str, Any], found: _Found) -> tuple[_Pairs, int]:
    """Every whole pair of factors by its module's path, and how many numbers the file stores."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{folder / WEIGHTS} cannot be read ({error}): copy or save the adapter again.") from None
    if "lora_alpha" not in config:
        _add(found, "note", f"lora_alpha is missing; PEFT takes {_PEFT_DEFAULT}, and so do these numbers", CONFIG)
    start = str(config.get("init_lora_weights")).lower()
    if start.startswith(_MOVES_BASE):
        _add(found, "note", f"the start {start!r} also changes the base; measured is scale B A alone", CONFIG)
    paths: dict[str, dict[str, str]] = {}
    for key in sorted(tensors):
        match = _FACTOR.fullmatch(key)
        if match is None:
            _add(found, "note", next(because for mark, because in _OTHERS.items() if mark in key), key)
        elif paths.setdefault(match[1], {}).setdefault(match[2], key) != key:
            _add(found, "problem", "this factor is stored twice, under two adapters' names", key)
    if not paths:
        _add(found, "problem", "no key ends in lora_A.weight or lora_B.weight", WEIGHTS)
    parameters = [str(name).rpartition(".")[0] for name in _field(config, "target_parameters", list)]
    pairs: _Pairs = {}
    for path, sides in paths.items():
        # PEFT nests one wrapper for each parameter of a module
        bare = "." + re.sub(r"(\.base_layer)+$", "", path)
        left, right = (tensors.get(sides.get(side, "")) for side in "BA")
        if any(bare.endswith(f".{module}") for module in parameters):
            _add(found, "note", "the factors of a 3-D parameter (experts) are not measured", path)
        elif left is None or right is None:
            _add(found, "problem", "lora_A or lora_B is missing: PEFT would keep its own start in that place", path)
        elif left.ndim != 2 or right.ndim != 2:
            _add(found, "note", "the factors are no matrices (a convolution?) and are not measured", path)
        elif left.shape[1] != right.shape[0] or 0 in (*left.shape, *right.shape):
            because = f"lora_B is {tuple(left.shape)} and lora_A {tuple(right.shape)}: allowed is one rank from 1 up"
            _add(found, "problem", because, path)
        else:
            pairs[path] = left, right, _scale(config, path, len(right), found)
    return pairs, sum(tensor.numel() for tensor in tensors.values())


def _scale(config: Mapping[str, Any], path: str, rows: int, found: _Found) -> float:
    """alpha / r or alpha / sqrt(r) as PEFT finds them: by the first pattern that the path ends in, else in common."""
    values = []
    for key, patterns in (("r", "rank_pattern"), ("lora_alpha", "alpha_pattern")):
        value = config.get(key, _PEFT_DEFAULT)
        for pattern, own in reversed(_field(config, patterns, dict).items()):
            try:
                value = own if re.match(rf"(.*\.)?({pattern})$", path) else value
            except re.error:
                _add(found, "problem", f"the pattern {pattern!r} is no regular expression: PEFT stops", CONFIG)
        values.append(_number(value))
    rank, alpha = values
    if rank is None or alpha is None or rank < 1:
        _add(found, "problem", "r or alpha is no usable number; the scale here is a guess", path)
    elif rank != rows:
        _add(found, "problem", f"the config declares rank {rank:g} and the file stores {rows}: PEFT stops", path)
    alpha, rank = _PEFT_DEFAULT if alpha is None else alpha, rank if rank and rank >= 1 else rows
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) < 1e9 else None


def _field(config: Mapping[str, Any], key: str, kind: type) -> Any:
    return config[key] if isinstance(config.get(key), kind) else kind()


def _add(found: _Found, kind: str, because: str, *subjects: str) -> None:
    if subjects:
        found.setdefault((kind, because), []).extend(subjects)


def _finding(kind: str, because: str, subjects: list[str]) -> Finding:
    first, *others = dict.fromkeys(subjects)
    return Finding(kind=kind, subject=f"{first} and {len(others)} more" if others else first, because=because)


def _open_base(base: str | Path | Checkpoint | None, config: Mapping[str, Any]) -> tuple[Checkpoint | None, str]:
    """The base, or None and why: a stranger's config may name a folder, but never starts a download or stops the audit."""
    if base is not None:
        return base if isinstance(base, Checkpoint) else Checkpoint.open(base), ""
    named = str(config.get("base_model_name_or_path") or "")
    try:
        if named == "embedded" or (named and Path(named).is_dir()):
            return Checkpoint.open(named), ""
    except (InputError, OSError) as error:
        return None, f"the config's base {named!r} cannot be opened ({error})"
    return None, f"no base was given and the config's base {named!r} is no folder here"


def _spectra(
    checkpoint: Checkpoint, pairs: _Pairs, found: _Found, progress: Progress | None
) -> dict[str, MatrixGeometry]:
    """The geometry of every matrix that a pair changes, by the pair's name."""
    matched: dict[str, MatrixRef] = {}
    for name, (left, right, _) in pairs.items():
        shape = len(left), right.shape[1]
        ref = _match(checkpoint.refs, name, shape)
        if ref is None:
            _add(found, "problem", f"matches no matrix of {checkpoint.source}", name)
        elif ref.shape != shape:
            _add(found, "problem", f"makes a {shape} change of a {ref.shape} matrix of {checkpoint.source}", name)
        else:
            matched[name] = ref
    refs = {ref.name: ref for ref in matched.values()}
    spectra = {one.ref.name: one for one in stream_geometry(checkpoint, refs=tuple(refs.values()), progress=progress)}
    return {name: spectra[ref.name] for name, ref in matched.items()}


def _match(refs: tuple[MatrixRef, ...], path: str, shape: tuple[int, int]) -> MatrixRef | None:
    """The matrix that an adapter's path means: the same path, or the only one that ends alike (a wrapper more or less)."""
    modules = {ref.module: ref for ref in refs if ref.expert is None and ref.slice is None}
    alike = [module for module in modules if module.endswith(f".{path}") or path.endswith(f".{module}")]
    found = [path] if path in modules else alike
    if found:
        return modules[found[0]] if len(found) == 1 else None
    # a head that is tied to the embedding has no matrix of its own: it changes the embedding's
    roles = {ref.role: ref for ref in refs}
    tied = roles.get("embed") if "head" not in roles and not re.search(r"\.\d+\.", path) else None
    return tied if tied is not None and tied.shape == shape else None


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
