"""One check of a claim: a measured figure held against a threshold, and what it is good for if it is met."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Self

from geonb.errors import InputError
from geonb.geometry.measurement import Measurement
from geonb.records import Record, plain

COMPARISONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
MACHINERY, EVIDENCE, HOLDS, REFUTED, CONSTRUCTION = "machinery", "evidence", "holds", "refuted", "construction"
# each with what a reader is told of it
DECIDES = {
    MACHINERY: "must be met",
    EVIDENCE: "needed to decide",
    HOLDS: "needed to hold",
    REFUTED: "would refute",
    CONSTRUCTION: "an identity",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check(Record):
    """A named condition `measured comparison threshold`; make one with `Check.of`.

    `decides` says what it is for: "machinery" must be met in every run of the notebook; "evidence" must be met before
    anything is decided; the claim holds where every check for "holds" is met, and fails where one for "refuted" is. One for
    "construction" is an identity: needed like one for "holds", and where there are no others the claim holds by construction.
    """

    name: str
    part: str  # of the claim, "" for a claim without parts
    decides: str
    measured: float | None  # None: not measured
    interval: tuple[float, float] | None
    n: int | None  # how many units the figure rests on
    unit: str
    comparison: str
    threshold: float

    @classmethod
    def of(
        cls,
        name: str,
        measured: Measurement | float | None,
        comparison: str,
        threshold: float,
        *,
        part: str = "",
        decides: str = MACHINERY,
        unit: str = "",
    ) -> Self:
        """The check that `measured` stands in `comparison` to `threshold`; None stands for what was not measured.

        Of a `Measurement` with an interval both ends must agree, else the check is undecided. Raises `InputError` for an
        unknown comparison or use, and for a threshold that is not finite.

        >>> Check.of("largest ||dW||_2 / R", 0.98, "<=", 1.0)
        ✓ largest ||dW||_2 / R: 0.98 <= 1
        """
        for what, given, allowed in (("comparison", comparison, COMPARISONS), ("use", decides, DECIDES)):
            if given not in allowed:
                raise InputError(
                    f"the check {name!r} was given the {what} {given!r}; allowed are {', '.join(allowed)}."
                )
        if not math.isfinite(threshold):
            raise InputError(f"the check {name!r} was given the threshold {threshold}; allowed is any finite number.")
        interval, n = None, None
        if isinstance(measured, Measurement):
            interval, n, unit, measured = measured.interval, measured.n, unit or measured.unit, measured.value
        return cls(
            name=name,
            part=part,
            decides=decides,
            # numpy's scalars too
            measured=None if measured is None else float(measured),
            interval=interval,
            n=n,
            unit=unit,
            comparison=comparison,
            threshold=float(threshold),
        )

    @property
    def met(self) -> bool | None:
        """Whether the condition is met; None where it was not measured or its interval holds the threshold."""
        if self.measured is None or math.isnan(self.measured):
            return None
        ends = self.interval or (self.measured, self.measured)
        if any(map(math.isnan, ends)):
            return None
        found = {bool(COMPARISONS[self.comparison](end, self.threshold)) for end in ends}
        return found.pop() if len(found) == 1 else None

    @property
    def n_needed(self) -> int | None:
        """How many units would decide, were value and spread to stay: the half-width falls as 1/sqrt(n).

        None where the check is decided, where n or an interval is missing, and where the value lies on the threshold.
        """
        if self.met is not None or self.measured is None or not self.interval or not self.n:
            return None
        distance = abs(self.measured - self.threshold)
        # the end that lies beyond the threshold
        reach = abs(self.interval[1 if self.measured < self.threshold else 0] - self.measured)
        if not math.isfinite(reach) or distance == 0 or reach / distance > 1e4:
            return None
        return math.ceil(self.n * (reach / distance) ** 2)

    @property
    def sentence(self) -> str:
        """The condition with its figures."""
        unit = f" {self.unit}" if self.unit else ""
        if self.measured is None:
            figure = "not measured; needed is a figure"
        else:
            interval = f" [{self.interval[0]:.4g}, {self.interval[1]:.4g}]" if self.interval else ""
            count = f" (n = {self.n})" if self.n is not None else ""
            figure = f"{self.measured:.6g}{unit}{interval}{count}"
            if self.met is None:
                figure += ", undecided against"
            elif not self.met:
                figure += ", which is not"
        needed = "" if self.n_needed is None else f"; at this spread n = {self.n_needed} would decide"
        return plain(f"{self.name}: {figure} {self.comparison} {self.threshold:.6g}{needed}")

    def summary(self) -> str:
        # a refutation that did not come about is neither a success nor a failure
        signs = {True: "✗", False: "○", None: "–"} if self.decides == REFUTED else {True: "✓", False: "✗", None: "–"}
        return f"{signs[self.met]} {self.sentence}"
