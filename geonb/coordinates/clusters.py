"""Whether coordinates of one kind lie together: silhouettes in the kernel's distance against a permutation of the labels.

    s_i = (b_i - a_i) / max(a_i, b_i),  a_i the mean distance 1 - k to its own label, b_i to the nearest other (Rousseeuw 1987)

Tasks of one kind use the same words, so a bag of words clusters too: the same figure on such a control says what is the model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geonb.errors import InputError
from geonb.geometry.inference import permutation_p
from geonb.geometry.measurement import Measurement
from geonb.geometry.statistics import bootstrap_interval, paired_bootstrap
from geonb.record_tables import table_html
from geonb.records import Record, plain

_SLACK = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Separation(Record):
    """How far labels are told apart by one distance; the silhouette's `null` is its mean over permuted labels."""

    silhouette: Measurement
    null_interval: tuple[float, float]  # 95 % of permuted labels
    p: float  # one-sided, never zero
    by_label: dict[str, float]

    def summary(self) -> str:
        low, high = self.null_interval
        return f"Separation({self.silhouette.value:.3f}, permuted [{low:.3f}, {high:.3f}], p {self.p:.3g})"


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinateClusters(Record):
    """Named coordinates in the kernel, and whether their labels are clusters there.

    `places` are the first two axes of the classical scaling of the distance sqrt(2 - 2k), in the order of the names; `shown`
    is the share of the squared distances that they hold. `over_control` is the mean difference of the two silhouettes, item
    by item.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    kernel: tuple[tuple[float, ...], ...]
    places: tuple[tuple[float, float], ...]
    shown: float
    found: Separation
    control: Separation | None
    control_name: str
    over_control: Measurement | None

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        low, high = self.found.null_interval
        value = self.found.silhouette.value
        if value <= high:
            return f"The labels are no clusters: {value:.3f} lies within what permuted labels give, up to {high:.3f}."
        if value <= 0:  # each item is nearer to another label's than to its own, in the mean
            above = f"is above what permuted labels give, up to {high:.3f}, and not above 0"
            return f"The labels are no clusters: {value:.3f} {above}."
        if self.over_control is None:
            return f"The labels are clusters: {value:.3f}, permuted labels {low:.3f} to {high:.3f}."
        interval = self.over_control.interval
        assert interval is not None
        more = "more than" if interval[0] > 0 else "less than" if interval[1] < 0 else "no more than"
        return f"The labels are clusters (permuted labels reach {high:.3f}), and {more} in {plain(self.control_name)}."

    def summary(self) -> str:
        return (
            f"CoordinateClusters({len(self.names)} coordinates, {len(set(self.labels))} labels, {self.found.summary()})"
        )

    def to_text(self) -> str:
        lines = [f"{len(self.names)} coordinates of {len(set(self.labels))} labels: {self.sentence}"]
        lines += [f"  {' '.join(str(cell) for cell in row)}" for row in self._rows()]
        lines += [f"  {plain(label):>24}  {value:6.3f}" for label, value in self.found.by_label.items()]
        return "\n".join(lines)

    def to_html(self) -> str:
        figures = table_html(
            ("silhouette of the labels", "value", "95 %", "permuted, 95 %", "p"), self._rows(), caption=self.sentence
        )
        counts = {label: self.labels.count(label) for label in self.found.by_label}
        each = [(label, counts[label], value) for label, value in self.found.by_label.items()]
        return figures + table_html(("label", "coordinates", "mean silhouette"), each)

    def _rows(self) -> list[tuple[str, str, str, str, str]]:
        sides = [("coordinates, 1 - k", self.found)]
        sides += [(self.control_name, self.control)] if self.control is not None else []
        rows = [
            (
                plain(name),
                f"{one.silhouette.value:.3f}",
                _span(one.silhouette.interval),
                _span(one.null_interval),
                f"{one.p:.2g}",
            )
            for name, one in sides
        ]
        if self.over_control is not None:
            one = self.over_control
            rows.append(("difference", f"{one.value:+.3f}", _span(one.interval), "", ""))
        return rows


def coordinate_clusters(
    model: Any,
    thetas: Any,
    names: Sequence[str],
    labels: Sequence[str],
    *,
    control: Any = None,
    control_name: str = "bag of words",
    permutations: int = 2000,
    seed: int = 0,
) -> CoordinateClusters:
    """Cluster figures of `thetas` (K, coordinates) under the directions of every layer of `model`.

    `control` (K, features) holds what the same items look like without the model, such as counts of words or means of
    embeddings, compared by 1 - cosine. Raises `InputError` for a theta of another width, and as `clusters` does.

    >>> coordinate_clusters(model, thetas, names, labels, control=counts)    # doctest: +SKIP
    CoordinateClusters(48 coordinates, 5 labels, Separation(0.213, permuted [-0.094, -0.031], p 0.0005))
    """
    import torch

    given = torch.as_tensor(thetas)
    if given.dim() != 2 or given.shape[1] != model.sizes.coordinates:
        raise InputError(f"thetas of shape {tuple(given.shape)} were given; allowed is (K, {model.sizes.coordinates}).")
    with torch.no_grad():
        layers = [layer.directions.phases(given.to(layer.directions.directions)).double() for layer in model.uses]
        phases = torch.cat(layers, dim=-1)  # as many pairs a layer, so the mean over all is that over layers
    return clusters(
        kernel_matrix(phases.numpy()), names, labels, control=control, control_name=control_name,
        permutations=permutations, seed=seed,
    )  # fmt: skip


def kernel_matrix(phases: np.ndarray) -> np.ndarray:
    """k of every two of K coordinates from phases (K, pairs): (K, K); pairs of several layers side by side are averaged.

    >>> kernel_matrix(np.array([[0.0, 0.0], [np.pi, 0.0]])).round(12).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    weights = np.concatenate([np.cos(phases), np.sin(phases)], axis=1)
    found = weights @ weights.T / phases.shape[1]
    np.fill_diagonal(found, 1.0)
    return found


def clusters(
    kernel: Any,
    names: Sequence[str],
    labels: Sequence[str],
    *,
    control: Any = None,
    control_name: str = "bag of words",
    permutations: int = 2000,
    seed: int = 0,
) -> CoordinateClusters:
    """The same from a kernel matrix (K, K) of any kind of coordinate.

    The interval is a bootstrap over the items' silhouettes. Raises `InputError` for a matrix that is no kernel, for fewer than
    two labels or none with two items, for lengths that differ, and for a control that is not finite or has an empty row.
    """
    k = np.asarray(kernel, dtype=np.float64)
    count = len(names)
    _check(k, names, labels, permutations)
    rng = np.random.default_rng(seed)
    found, own = _separation(1 - k, labels, rng, permutations, "kernel distance 1 - k")
    other = over = None
    if control is not None:
        features = np.asarray(control, dtype=np.float64)
        if features.ndim != 2 or len(features) != count or not np.isfinite(features).all():
            raise InputError(
                f"a control of shape {features.shape} was given; allowed are {count} rows of finite numbers."
            )
        norms = np.linalg.norm(features, axis=1)
        if not (norms > 0).all():
            raise InputError(
                f"the control's row {int(np.argmin(norms))} is zero; allowed are rows that have a direction."
            )
        unit = features / norms[:, None]
        other, theirs = _separation(1 - unit @ unit.T, labels, rng, permutations, "1 - cosine of the control")
        over = Measurement(
            value=float((own - theirs).mean()),
            interval=paired_bootstrap(own, theirs, rng=rng),
            n=count,
            null=0.0,
            unit="",
            operator=f"silhouette in 1 - k minus that in the control, paired bootstrap over items, seed {seed}",
        )
    places, shown = scaled(k)
    return CoordinateClusters(
        names=tuple(map(str, names)),
        labels=tuple(map(str, labels)),
        kernel=tuple(tuple(map(float, row)) for row in k),
        places=tuple((float(x), float(y)) for x, y in places),
        shown=shown,
        found=found,
        control=other,
        control_name=control_name,
        over_control=over,
    )


def scaled(kernel: np.ndarray) -> tuple[np.ndarray, float]:
    """(K, 2) places whose distances are nearest to sqrt(2 - 2k) (classical scaling, Torgerson 1952), and the share they hold."""
    centred = kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean()
    values, vectors = np.linalg.eigh((centred + centred.T) / 2)
    values = values.clip(min=0)
    total = float(values.sum())
    top = vectors[:, ::-1][:, :2]
    # an eigenvector's sign means nothing: the entry of largest size is made positive, so that a picture is always the same
    top = top * np.where(np.take_along_axis(top, np.abs(top).argmax(0)[None], 0) < 0, -1, 1)
    return top * np.sqrt(values[::-1][:2]), float(values[-2:].sum() / total) if total > 0 else 0.0


def silhouettes(distances: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """s_i of every item (K,); 0 for one that is alone with its label, as Rousseeuw has it."""
    _, codes = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    return _silhouettes(distances, codes)


def _silhouettes(distances: np.ndarray, codes: np.ndarray) -> np.ndarray:
    belongs = np.eye(int(codes.max()) + 1)[codes]
    sizes = belongs.sum(0)
    sums = distances @ belongs
    rows = np.arange(len(codes))
    own = sums[rows, codes] / np.maximum(sizes[codes] - 1, 1)
    others = sums / sizes
    others[rows, codes] = np.inf
    nearest = others.min(1)
    larger = np.maximum(own, nearest)
    known = (sizes[codes] > 1) & (larger > 0)
    return np.where(known, (nearest - own) / np.where(larger > 0, larger, 1.0), 0.0)


def _separation(
    distances: np.ndarray, labels: Sequence[str], rng: np.random.Generator, permutations: int, what: str
) -> tuple[Separation, np.ndarray]:
    distances = distances.clip(min=0)
    np.fill_diagonal(distances, 0.0)
    known, codes = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    own = _silhouettes(distances, codes)
    null = np.array([_silhouettes(distances, rng.permutation(codes)).mean() for _ in range(permutations)])
    low, high = np.quantile(null, [0.025, 0.975])
    measured = Measurement(
        value=float(own.mean()),
        interval=bootstrap_interval(own, rng=rng),
        n=len(own),
        null=float(null.mean()),
        unit="",
        operator=f"mean silhouette, {what}, bootstrap over items, null: mean of {permutations} permutations of the labels",
    )
    by_label = {str(name): float(own[codes == place].mean()) for place, name in enumerate(known)}
    p = permutation_p(float(own.mean()), [float(one) for one in null])
    return Separation(silhouette=measured, null_interval=(float(low), float(high)), p=p, by_label=by_label), own


def _check(kernel: np.ndarray, names: Sequence[str], labels: Sequence[str], permutations: int) -> None:
    count = len(names)
    if kernel.shape != (count, count) or len(labels) != count:
        raise InputError(
            f"a kernel of shape {kernel.shape}, {count} names and {len(labels)} labels were given; "
            "allowed is one of each a coordinate."
        )
    fine = np.isfinite(kernel).all() and np.abs(kernel - kernel.T).max(initial=0) < _SLACK
    if not fine or np.abs(kernel).max(initial=0) > 1 + _SLACK or np.abs(kernel.diagonal() - 1).max(initial=0) > _SLACK:
        raise InputError("the kernel is not one; allowed is a symmetric matrix from -1 to 1 with 1 on its diagonal.")
    kinds = len(set(map(str, labels)))
    if not 2 <= kinds < count:
        raise InputError(
            f"{kinds} labels of {count} coordinates were given; allowed are two or more, and one at least with two coordinates."
        )
    if permutations < 19:
        raise InputError(
            f"{permutations} permutations were asked for; allowed are 19 or more, the fewest that can give p = 0.05."
        )


def _span(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"[{interval[0]:.3f}, {interval[1]:.3f}]"
