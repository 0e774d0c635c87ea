"""Figures by name with every draw of their null, so that a claim can ask how often chance does as much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from geonb.errors import InputError
from geonb.geometry.measurement import Measurement
from geonb.record_tables import table_html
from geonb.records import Record, plain

_COLUMNS = ("quantity", "measured", "unit", "95 % interval", "n", "null", "null's range", "operator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured(Record):
    """What one analysis measured of one subject; `measured` holds the figures and `nulls` the draws behind each null.

    >>> spectra(np.diag([3.0, 2.0, 1.0]))["sigma_max"].value  # doctest: +SKIP
    3.0
    """

    subject: str
    measured: dict[str, Measurement]
    nulls: dict[str, tuple[float, ...]]  # one entry a draw; missing where a figure has no null

    def __getitem__(self, name: str) -> Measurement:
        if name not in self.measured:
            raise InputError(
                f"{plain(name)[:60]!r} was not measured of {self.subject}; there are {', '.join(self.measured)}."
            )
        return self.measured[name]

    def null_interval(self, name: str) -> tuple[float, float] | None:
        """Mean -+ 2 standard deviations (n - 1) of the null's draws; None below two draws."""
        self[name]
        return spread_of(self.nulls.get(name, ()))

    def p_value(self, name: str, *, above: bool = True) -> float | None:
        """(1 + draws that reach the figure) / (1 + draws), one-sided (Phipson & Smyth 2010); None without draws."""
        value, draws = self[name].value, np.asarray(self.nulls.get(name, ()))
        draws = draws[np.isfinite(draws)]
        if not len(draws) or math.isnan(value):
            return None
        return float((1 + ((draws >= value) if above else (draws <= value)).sum()) / (1 + len(draws)))

    def over_null(self, name: str) -> float:
        """value / null; nan where there is no null or it is 0."""
        found = self[name]
        return found.value / found.null if found.null else math.nan

    def summary(self) -> str:
        return f"{type(self).__name__}({self.subject}: {len(self.measured)} figures)"

    def to_text(self) -> str:
        width = max((len(name) for name in self.measured), default=0)
        return "\n".join([self.subject, *(f"  {name:{width}}  {one!r}" for name, one in self.measured.items())])

    def to_html(self) -> str:
        return measured_table(self.measured, self.nulls, caption=self.subject)


def measured_table(
    measured: Mapping[str, Measurement], nulls: Mapping[str, Sequence[float]], *, caption: str = ""
) -> str:
    """The figures as an HTML table, one row each."""
    rows = [
        (
            name,
            one.value,
            one.unit,
            _range(one.interval),
            one.n,
            one.null,
            _range(spread_of(nulls.get(name, ()))),
            one.operator,
        )
        for name, one in measured.items()
    ]
    return table_html(_COLUMNS, rows, caption=caption)


def _range(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}"


def spread_of(draws: Sequence[float]) -> tuple[float, float] | None:
    """Mean -+ 2 standard deviations (n - 1) of the finite draws; None below two of them."""
    values = np.asarray(draws, dtype=np.float64)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return None
    mean, half = float(values.mean()), 2 * float(values.std(ddof=1))
    return mean - half, mean + half


def mean_of(draws: Sequence[float]) -> float | None:
    """The mean of the finite draws; None where there is none."""
    values = np.asarray(draws, dtype=np.float64)
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def assemble(
    figures: Mapping[str, tuple[float, tuple[float, float] | None]],
    nulls: Mapping[str, Sequence[float]],
    *,
    n: int,
    units: Mapping[str, str],
    operators: Mapping[str, str],
    said: str,
) -> tuple[dict[str, Measurement], dict[str, tuple[float, ...]]]:
    """The two tables of a `Measured`: every (value, interval) of `figures` with the mean of its null's draws.

    `said` closes each operator: seed, number of draws, what the null is.
    """
    kept = {name: tuple(float(value) for value in nulls[name]) for name in figures if name in nulls}
    measured = {
        name: Measurement(
            value=float(value),
            interval=None if interval is None else (float(interval[0]), float(interval[1])),
            n=n,
            null=mean_of(kept.get(name, ())),
            unit=units.get(name, ""),
            operator="; ".join(part for part in (operators.get(name, ""), said) if part),
        )
        for name, (value, interval) in figures.items()
    }
    return measured, kept


def check_draws(draws: int, least: int = 1) -> None:
    """Raise `InputError` for fewer draws of the null than are needed."""
    if draws < least:
        raise InputError(f"{draws} draws of the null were asked for; allowed are {least} and more: give draws={least}.")


def finite_matrix(given, *, name: str, rows: int = 1) -> np.ndarray:
    """`given` as a float64 matrix; raises `InputError` where it is none, too small, or not finite."""
    try:
        # a torch tensor in bfloat16 has no numpy form of its own
        given = given.detach().cpu().double().numpy() if hasattr(given, "detach") else given
        matrix = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(
            f"{name} is a {type(given).__name__}; allowed is a matrix of numbers: give an array of two dimensions."
        ) from None
    if matrix.ndim != 2 or len(matrix) < rows or matrix.shape[1] < 1:
        raise InputError(f"{name} has the shape {matrix.shape}; allowed are two dimensions with {rows} or more rows.")
    if not np.isfinite(matrix).all():
        raise InputError(f"{name} holds NaN or infinity: check how it was made.")
    return matrix
