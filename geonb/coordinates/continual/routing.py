"""Does a question's coordinate say which operation it asks for? Share of held-out prompts whose nearest theta_k is the right one.

theta_k is the mean of theta over training prompts of operation k. Controls: nearest centroids of bags of words and of characters,
which know nothing of coordinates; labels shuffled before the centroids are formed. Named prompts are solved by looking the name
up, so only the other forms can show anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from geonb.coordinates.continual.language import theta_of
from geonb.coordinates.continual.operation import FORMS, Operation, Prompt, ask
from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.phases import kernel
from geonb.coordinates.predictor import on_sphere
from geonb.errors import InputError
from geonb.geometry.measurement import Measurement
from geonb.geometry.statistics import paired_bootstrap, wilson
from geonb.record_tables import table_html
from geonb.records import Record, plain

_CONTROL = "bag of words"
ROUTERS = ("kernel", "bag of words", "bag of characters", "shuffled labels")


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed(Record):
    """One router on the held-out prompts of one form."""

    form: str
    router: str
    errors: int
    accuracy: Measurement
    ahead: Measurement | None  # accuracy less that of bags of words on the same prompts; None for those themselves


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingReport(Record):
    """Routing accuracy of the coordinates and of the controls, with Wilson intervals; chance is 1 / operations."""

    operations: int
    prompts: int  # held-out ones for each operation and form
    seed: int
    routed: tuple[Routed, ...]

    def of(self, form: str, router: str = "kernel") -> Routed:
        """The entry of a form and a router; raises `InputError` where there is none."""
        for one in self.routed:
            if (one.form, one.router) == (form, router):
                return one
        raise InputError(
            f"nothing was routed by {plain(router)!r} on {plain(form)!r} prompts; allowed are {ROUTERS}, {FORMS}."
        )

    def summary(self) -> str:
        told = ", ".join(f"{one.form} {one.accuracy.value:.1%}" for one in self.routed if one.router == "kernel")
        return f"RoutingReport({self.operations} operations: {told})"

    def to_text(self) -> str:
        lines = [
            f"Routing of {self.operations} operations, {self.prompts} held-out prompts each (chance {1 / self.operations:.2%})"
        ]
        return "\n".join([*lines, *(f"  {one.form:12} {one.router:18} {one.accuracy!r}" for one in self.routed)])

    def to_html(self) -> str:
        rows = [(one.form, one.router, one.accuracy.value, repr(one.accuracy)) for one in self.routed]
        return table_html(("form", "router", "accuracy", "with interval"), rows, caption=self.to_text().split("\n")[0])


def bags(training: Sequence[str], questions: Sequence[str], *, words: bool) -> tuple[np.ndarray, np.ndarray]:
    """Counts of words, or of characters, as rows of norm 1 over the training texts' vocabulary."""
    parts = [[*text.split()] if words else [*text] for text in (*training, *questions)]
    known = {one: place for place, one in enumerate(sorted({part for row in parts[: len(training)] for part in row}))}
    counts = np.zeros((len(parts), len(known)))
    for row, found in enumerate(parts):
        for part in found:
            if part in known:
                counts[row, known[part]] += 1
    counts /= np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-12)
    return counts[: len(training)], counts[len(training) :]


def nearest_centroid(training: np.ndarray, labels: np.ndarray, questions: np.ndarray) -> np.ndarray:
    """The label whose centroid has the largest cosine with each question: (n,)."""
    centroids = np.stack([training[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    centroids /= np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-12)
    return (questions @ centroids.T).argmax(axis=1)


@torch.no_grad()
def nearest_coordinate(
    model: CoordinateModel, training: Sequence[Prompt], labels: np.ndarray, questions: Sequence[Prompt]
) -> np.ndarray:
    """argmax_k of the kernel between theta(question) and theta_k, the mean over the layers: (n,)."""
    thetas, asked = theta_of(model, training), theta_of(model, questions)
    members = [torch.from_numpy(labels == label) for label in range(labels.max() + 1)]
    centres = on_sphere(torch.stack([thetas[inside].mean(dim=0) for inside in members]))
    scores = sum(
        kernel(layer.directions.phases(asked)[:, None], layer.directions.phases(centres)[None]) for layer in model.uses
    )
    return scores.argmax(dim=1).numpy()  # type: ignore[union-attr]


def routing_report(
    model: CoordinateModel,
    operations: Sequence[Operation],
    *,
    seed: int = 0,
    training: int = 20,
    prompts: int = 20,
    forms: Sequence[str] = FORMS,
) -> RoutingReport:
    """Route held-out prompts of each form by the model's coordinates and by the controls.

    `training` prompts of each operation make its centroid. Raises `InputError` for fewer than two operations or no prompts.
    """
    if len(operations) < 2 or min(training, prompts) < 1:
        raise InputError(
            f"{len(operations)} operations with {training} and {prompts} prompts were given; routing needs two and one of each."
        )
    routed = []
    for form in forms:
        rng = np.random.default_rng((seed, FORMS.index(form)))
        known = [ask(one, rng, form, False) for one in operations for _ in range(training)]
        asked = [ask(one, rng, form, True) for one in operations for _ in range(prompts)]
        labels = np.repeat(np.arange(len(operations)), training)
        truth = np.repeat(np.arange(len(operations)), prompts)
        texts = [one.prompt for one in known], [one.prompt for one in asked]
        guesses = {"kernel": nearest_coordinate(model, known, labels, asked)}
        for name, words in (("bag of words", True), ("bag of characters", False)):
            first, second = bags(*texts, words=words)
            guesses[name] = nearest_centroid(first, labels, second)
        guesses["shuffled labels"] = nearest_coordinate(model, known, rng.permutation(labels), asked)
        right = {name: guess == truth for name, guess in guesses.items()}
        routed += [_routed(form, name, right, len(operations), seed) for name in right]
    return RoutingReport(operations=len(operations), prompts=prompts, seed=seed, routed=tuple(routed))


def _routed(form: str, router: str, everyone: dict[str, np.ndarray], operations: int, seed: int) -> Routed:
    right, control = everyone[router], everyone[_CONTROL]
    hits, count = int(right.sum()), len(right)
    accuracy = Measurement(
        value=hits / count,
        interval=wilson(hits, count),
        n=count,
        null=1 / operations,
        unit="share",
        operator=f"held-out prompts routed to their operation by {router}; 95 % Wilson, seed {seed}",
    )
    ahead = Measurement(
        value=float(right.mean() - control.mean()),
        interval=paired_bootstrap(right, control, rng=np.random.default_rng(seed)),
        n=count,
        null=0.0,
        unit="share",
        operator=f"accuracy of {router} less that of {_CONTROL}; 95 % paired bootstrap over prompts, seed {seed}",
    )
    return Routed(
        form=form,
        router=router,
        errors=count - hits,
        accuracy=accuracy,
        ahead=None if router == _CONTROL else ahead,
    )
