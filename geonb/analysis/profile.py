"""How the geometry of a model's activations changes over its layers, each figure beside a Gaussian or an untrained twin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geonb.analysis.activations import Activations
from geonb.analysis.layer_figures import OPERATORS, UNITS, Clouds, Options, figures_of
from geonb.analysis.measured import Measured, assemble, check_draws, finite_matrix
from geonb.errors import InputError
from geonb.geometry.measurement import Measurement
from geonb.geometry.point_cloud import gaussian_twin
from geonb.record_tables import table_html
from geonb.records import Record

NORMALISATIONS = ("raw", "rms", "drop-outliers")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerMeasured(Measured):
    """The figures of one layer."""

    layer: int  # -1 is what the first block reads


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProfile(Record):
    """The figures of every layer; `profile[3]["two_nn"]` is one, `profile.curve("two_nn")` is one over all layers."""

    source: str
    n: int
    width: int
    pool: str
    normalise: str
    dropped: tuple[int, ...]  # dimensions that "drop-outliers" took out
    layers: tuple[LayerMeasured, ...]

    def __getitem__(self, layer: int) -> LayerMeasured:
        for one in self.layers:
            if one.layer == layer:
                return one
        raise InputError(
            f"layer {layer} was not profiled; there are {', '.join(str(one.layer) for one in self.layers)}."
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The figures that some layer has."""
        return tuple(dict.fromkeys(name for one in self.layers for name in one.measured))

    def curve(self, name: str) -> dict[int, Measurement]:
        """One figure by layer, where it was measured; raises `InputError` for a name that no layer has."""
        found = {one.layer: one.measured[name] for one in self.layers if name in one.measured}
        if not found:
            raise InputError(f"{name!r} was measured at no layer; there are {', '.join(self.names)}.")
        return found

    def summary(self) -> str:
        return f"LayerProfile({self.source!r}, {len(self.layers)} layers, n = {self.n}, {self.pool}, {self.normalise})"

    def _rows(self) -> list[list[Any]]:
        return [
            [one.layer, *(one.measured[name].value if name in one.measured else None for name in self.names)]
            for one in self.layers
        ]

    def to_text(self) -> str:
        cells = [["" if x is None else f"{x:.4g}" for x in row] for row in self._rows()]
        heads = ["layer", *self.names]
        widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [heads, *cells]
        ]
        return "\n".join([self.summary(), *lines])

    def to_html(self) -> str:
        rows = [
            [one.layer, *(repr(one.measured[name]) if name in one.measured else "" for name in self.names)]
            for one in self.layers
        ]
        return table_html(["layer", *self.names], rows, caption=self.summary())


def layer_profile(
    activations: Activations | Mapping[int, Any] | Sequence[Any],
    *,
    pool: str | None = None,
    normalise: str = "raw",
    outlier_ratio: float = 10.0,
    scales: Sequence[int] = (1, 2, 4, 8, 16),
    neighbours: int = 10,
    distortion: Sequence[int] = (),
    lens: Any = None,
    twin: Activations | Sequence[Activations] | None = None,
    draws: int = 3,
    halves: int = 40,
    rows: int = 1000,
    seed: int = 0,
) -> LayerProfile:
    """Per layer: TwoNN, MLE, GRIDE at `scales` (n1; n2 = 2 n1), participation ratio, effective rank, turning, lens entropy.

    `activations` as `collect` gives them, or matrices (n, d) by layer. Turning is the mean angle (radians) of a row before
    and after a block, with its attention (mixer) and MLP parts where the state between them was collected. `lens` is a
    `logit_lens` (or a model, whose lens is made). `pool` pools activations that were collected as tokens. `normalise`:
    "raw", "rms" (rows over their root mean square) or "drop-outliers" (without the dimensions whose root mean square is
    over `outlier_ratio` times the median dimension's at any layer). `distortion` adds D(k) of the k-neighbour graphs.
    Intervals are delete-half jackknifes over rows (over texts where rows are tokens). The null is that of `draws` Gaussian
    clouds with the same mean and covariance at and across layers, or of `twin`, the activations of one or more untrained
    models for the same texts. A Gaussian is a control for dimensions and bending only: it has the model's own covariance and
    mean, and so nearly its ranks, norms and angles, for which a twin is the control (lens entropy has none then). At most
    `rows` rows are used, drawn with `seed`. Raises `InputError` for options or shapes that do not fit and for fewer than 8
    rows.

    >>> profile = layer_profile([np.random.default_rng(0).standard_normal((200, 3))], draws=1)
    >>> 2.3 < profile[0]["two_nn"].value < 3.8
    True
    """
    _check(normalise, outlier_ratio, scales, neighbours, distortion, draws, halves, rows)
    given = _clouds(activations, pool)
    nulls = [_clouds(one, pool) for one in _twins(twin)]
    for other in nulls:
        if other.n != given.n or set(given.states) - set(other.states):
            raise InputError(
                f"the twin has {other.n} rows at {len(other.states)} places and the model {given.n} at {len(given.states)}; "
                "allowed are equal texts, pooling and layers: collect the twin as the model."
            )
    chosen = np.arange(given.n)
    if given.n > rows:
        chosen = np.sort(np.random.default_rng(seed).choice(given.n, rows, replace=False))
    lens = _lens(lens)
    said = f"pool {given.pool}, {normalise}, float64, {halves} half samples, seed {seed}"
    given = given.taken(chosen)
    dropped = given.outliers(outlier_ratio) if normalise == "drop-outliers" else ()
    raw, given = given, given.normalised(normalise, dropped)
    options = Options(tuple(scales), neighbours, tuple(distortion), halves, seed)
    if nulls:
        drawn = [(one.taken(chosen), one.taken(chosen).normalised(normalise, dropped)) for one in nulls]
        said += f"; null: mean of {len(drawn)} untrained twin(s)"
    else:
        mixings = [np.random.default_rng((seed, draw)).standard_normal((len(chosen),) * 2) for draw in range(draws)]
        drawn = [
            tuple(each.mapped(lambda x, mix=mix: gaussian_twin(x, mix)) for each in (raw, given)) for mix in mixings
        ]
        said += f"; null: mean of {draws} Gaussian cloud(s) of equal mean and covariance"
    found = []
    for layer in given.layers:
        own = figures_of(raw, given, layer, options, lens, intervals=True)
        chance: dict[str, list[float]] = {}
        for one_raw, one in drawn:
            # the lens of the trained model says nothing of an untrained one's stream
            for name, (value, _) in figures_of(
                one_raw, one, layer, options, None if nulls else lens, intervals=False
            ).items():
                chance.setdefault(name, []).append(value)
        measured, kept = assemble(own, chance, n=len(chosen), units=UNITS, operators=_operators(options), said=said)
        found.append(
            LayerMeasured(subject=f"layer {layer} of {given.source}", measured=measured, nulls=kept, layer=layer)
        )
    return LayerProfile(
        source=given.source,
        n=len(chosen),
        width=given.width,
        pool=given.pool,
        normalise=normalise,
        dropped=tuple(int(one) for one in dropped),
        layers=tuple(found),
    )


def _operators(options: Options) -> dict[str, str]:
    found = dict(OPERATORS)
    found["mle"] = f"{OPERATORS['mle']}, {options.neighbours} neighbours"
    for first in options.scales:
        found[f"gride_{first}"] = f"GRIDE (Denti et al. 2022), n1 = {first}, n2 = {2 * first}, maximum likelihood"
    for k in options.distortion:
        found[f"distortion_{k}"] = f"mean(d_geo / d_euc) - 1 over the joined pairs of the {k}-neighbour graph"
    return found


def _check(normalise, outlier_ratio, scales, neighbours, distortion, draws, halves, rows) -> None:
    check_draws(draws)
    if normalise not in NORMALISATIONS:
        raise InputError(f"the normalisation {normalise!r} was given; allowed are {', '.join(NORMALISATIONS)}.")
    if not (math.isfinite(outlier_ratio) and outlier_ratio > 1):
        raise InputError(f"the outlier ratio {outlier_ratio} was given; allowed is any number above 1.")
    least = (("scale", scales, 1), ("number of distortion neighbours", distortion, 1), ("number of neighbours", [neighbours], 3),
             ("number of half samples", [halves], 4), ("number of rows", [rows], 8))  # fmt: skip
    for what, numbers, smallest in least:
        for one in numbers:
            if isinstance(one, bool) or not isinstance(one, int) or one < smallest:
                raise InputError(f"the {what} {one} was given; allowed are whole numbers from {smallest} on.")


def _twins(twin: Activations | Sequence[Activations] | None) -> list[Activations]:
    if twin is None:
        return []
    found = [twin] if isinstance(twin, Activations) else list(twin)
    if not found or not all(isinstance(one, Activations) for one in found):
        raise InputError(
            "the twin is no collected activations; allowed is what `collect` gave for a `random_twin`, or a list."
        )
    return found


def _lens(lens: Any) -> Any:
    if lens is None or hasattr(lens, "entropy"):
        return lens
    from geonb.analysis.lens import logit_lens

    return logit_lens(lens)


def _clouds(given: Any, pool: str | None) -> Clouds:
    if isinstance(given, Activations):
        pooled = pool or given.facts.pool
        states = {
            (state, layer): np.asarray(given.matrix(layer, state, pool=pool), dtype=np.float64)
            for state, layer in given.facts.stored
        }
        texts = given.rows if pooled == "tokens" else np.arange(len(given.facts.lengths))
        return Clouds(given.facts.source, pooled, given.layers, states, texts).checked()
    if pool is not None:
        raise InputError(
            "pooling was asked of plain matrices; allowed is pooling of activations that were collected as tokens."
        )
    items = dict(given) if isinstance(given, Mapping) else dict(enumerate(given))
    states = {("out", int(layer)): finite_matrix(one, name=f"layer {layer}") for layer, one in items.items()}
    if not states:
        raise InputError("no layer was given; allowed are activations, or one matrix a layer.")
    first = next(iter(states.values()))
    return Clouds(
        "matrices", "as given", tuple(sorted(layer for _, layer in states)), states, np.arange(len(first))
    ).checked()
