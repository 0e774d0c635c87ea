"""Whether texts of one domain, topic or style have coordinates that lie together, and whether training or words made it so.

Texts are cut to one number of tokens: a coordinate comes from the mean of a text's embeddings, so length alone would cluster.
Beside the coordinates stand permuted labels, the counts of the same tokens, and the model as it was before its first step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geonb.coordinates import grammar
from geonb.coordinates.analyze import encoded
from geonb.coordinates.clusters import CoordinateClusters, coordinate_clusters
from geonb.coordinates.model import CoordinateModel
from geonb.errors import InputError
from geonb.geometry.measurement import Measurement
from geonb.geometry.statistics import paired_bootstrap
from geonb.records import Record, plain

KINDS = ("domain", "topic", "style")
_TOPICS, _LENGTH = 5, 32


@dataclass(frozen=True, slots=True, kw_only=True)
class TextClusters(Record):
    """Clusters of texts' coordinates, with the same texts in the untrained model and in counts of their tokens."""

    kind: str
    tokens: int  # the texts were cut at this many
    trained: CoordinateClusters  # its control is the counts of tokens
    untrained: CoordinateClusters | None
    over_untrained: Measurement | None  # trained minus untrained silhouette, item by item

    def summary(self) -> str:
        return f"TextClusters({self.kind}, {self.trained.found.summary()})"

    def to_text(self) -> str:
        lines = [f"{self.kind}, texts of {self.tokens} tokens at most", self.trained.to_text()]
        if self.untrained is not None and self.over_untrained is not None:
            low, high = self.over_untrained.interval or (float("nan"),) * 2
            lines.append(
                f"before training {self.untrained.found.silhouette.value:.3f}; trained minus untrained "
                f"{self.over_untrained.value:+.3f} [{low:.3f}, {high:.3f}]: {self.sentence}"
            )
        return "\n".join(lines)

    @property
    def sentence(self) -> str:
        """What training did, in words."""
        if self.over_untrained is None or self.over_untrained.interval is None:
            return "the untrained model is not known."
        low, high = self.over_untrained.interval
        if low > 0:
            return "training brought them together."
        return "training drove them apart." if high < 0 else "training did nothing that shows."

    def to_html(self) -> str:
        told = "" if self.untrained is None else f"<p>{plain(self.to_text().splitlines()[-1])}</p>"
        return self.trained.to_html() + told


def labelled_texts(kind: str, count: int, *, seed: int = 0) -> tuple[list[str], list[str]]:
    """`count` texts of each label of a kind, none of them seen in training, and their labels.

    `domain`: sentences and dialogues of the grammar, verses, word problems, documentation; `topic`: sentences about one of five
    things; `style`: sentences of one register, which the first phase's loss names. Raises `InputError` for another kind.
    """
    if kind not in KINDS:
        raise InputError(f"the kind {plain(kind)!r} was given; allowed are {', '.join(KINDS)}.")
    if count < 2:
        raise InputError(f"{count} texts of a label were asked for; allowed are 2 or more.")
    rng = np.random.default_rng([seed, 53])
    made = {"domain": _domains, "topic": _topics, "style": _styles}[kind](rng, count)
    return [text for texts in made.values() for text in texts], [label for label, texts in made.items() for _ in texts]


def read_texts(path: str | Path) -> list[str]:
    """The texts of a JSONL file of {text} or {messages}."""
    from geonb.data.records import read_records

    return [_words(one) for one in read_records(path)]


def read_labelled(path: str | Path) -> tuple[list[str], list[str]]:
    """Texts and labels of a JSONL file of {text, group}; raises `InputError` for a line without a group."""
    from geonb.data.records import read_records

    records = read_records(path)
    for one in records:
        if one.group is None:
            raise InputError(f'{path}:{one.line} has no group; each line is {{"text": "...", "group": "label"}}.')
    return [_words(one) for one in records], [str(one.group) for one in records]


@torch.no_grad()
def thetas_of(model: CoordinateModel, tokenizer: Any, texts: Sequence[str], *, length: int = _LENGTH) -> torch.Tensor:
    """The coordinate (texts, coordinates) of the first `length` tokens of each text."""
    rows = (torch.tensor([_cut(model, tokenizer, text, length)]) for text in texts)
    return torch.stack([model.predict(model.embedding(row), "sequence")[0, 0] for row in rows])


def token_counts(model: CoordinateModel, tokenizer: Any, texts: Sequence[str], *, length: int = _LENGTH) -> np.ndarray:
    """How often each token stands in the same tokens: (texts, vocabulary)."""
    rows = [_cut(model, tokenizer, text, length)[1:] for text in texts]
    return np.stack([np.bincount(row, minlength=model.sizes.vocabulary) for row in rows]).astype(float)


def text_clusters(
    model: CoordinateModel,
    tokenizer: Any,
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    kind: str = "given",
    untrained: CoordinateModel | None = None,
    length: int = _LENGTH,
    permutations: int = 2000,
    seed: int = 0,
) -> TextClusters:
    """Cluster figures of the texts' coordinates under `labels`; `untrained` is the model before its first step.

    Raises `InputError` as `clusters` does, and for an untrained model of another size.
    """
    if untrained is not None and untrained.sizes != model.sizes:
        raise InputError("an untrained model of another size was given; it must be the model before its first step.")
    names = [f"{label} {place + 1}" for place, label in enumerate(labels)]
    options: dict[str, Any] = {"permutations": permutations, "seed": seed}
    found = coordinate_clusters(
        model, thetas_of(model, tokenizer, texts, length=length), names, labels,
        control=token_counts(model, tokenizer, texts, length=length), control_name="counts of the same tokens", **options,
    )  # fmt: skip
    before = over = None
    if untrained is not None:
        before = coordinate_clusters(
            untrained, thetas_of(untrained, tokenizer, texts, length=length), names, labels, **options
        )
        sides = [silhouettes_of(one) for one in (found, before)]
        over = Measurement(
            value=float((sides[0] - sides[1]).mean()),
            interval=paired_bootstrap(*sides, rng=np.random.default_rng(seed)),
            n=len(texts),
            null=0.0,
            unit="",
            operator=f"silhouette in 1 - k, trained minus untrained, paired bootstrap over texts, seed {seed}",
        )
    return TextClusters(kind=kind, tokens=length, trained=found, untrained=before, over_untrained=over)


def untrained_model(folder: str | Path) -> CoordinateModel | None:
    """The model of a training run as it was before its first step; None where the folder holds no recipe (an import)."""
    from geonb.coordinates.recipe import RECIPE, Recipe

    path = Path(folder) / RECIPE
    if not path.is_file():
        return None
    recipe = Recipe.load(path)
    return CoordinateModel(recipe.configuration, seed=recipe.seed).eval()


def silhouettes_of(found: CoordinateClusters) -> np.ndarray:
    """The silhouette of every item in 1 - k."""
    from geonb.coordinates.clusters import silhouettes

    distances = (1 - np.asarray(found.kernel)).clip(min=0)
    np.fill_diagonal(distances, 0.0)
    return silhouettes(distances, found.labels)


def _domains(rng: np.random.Generator, count: int) -> dict[str, list[str]]:
    from geonb.assets import dataset_path

    made = {
        # one sentence has about fifteen tokens: three of them fill what is read
        "sentences": [
            " ".join(grammar.draw_sentence(rng, held_out=True).text() for _ in range(3)) for _ in range(count)
        ],
        "dialogues": ["".join(grammar.dialogue(rng, 3, held_out=True)) for _ in range(count)],
    }
    files = {
        "verses": dataset_path("kjv", evaluation=True),
        "word problems": dataset_path("chat", evaluation=True),
        "documentation": dataset_path("retention"),
    }
    for label, path in files.items():
        texts = read_texts(path)
        if count > len(texts):
            raise InputError(f"{count} texts of a label were asked for; {label} has {len(texts)}.")
        made[label] = [texts[int(place)] for place in rng.choice(len(texts), size=count, replace=False)]
    return made


def _topics(rng: np.random.Generator, count: int) -> dict[str, list[str]]:
    things = [int(one) for one in rng.choice(len(grammar.THINGS), size=_TOPICS, replace=False)]
    made: dict[str, list[str]] = {grammar.THINGS[one]: [] for one in things}
    while min(map(len, made.values())) < count:
        sentence = grammar.draw_sentence(rng, held_out=True)
        texts = made.get(grammar.THINGS[sentence.content[2]])
        if texts is not None and len(texts) < count:
            texts.append(sentence.text())
    return made


def _styles(rng: np.random.Generator, count: int) -> dict[str, list[str]]:
    made: dict[str, list[str]] = {name: [] for name in grammar.ATTRIBUTES["register"]}
    while min(map(len, made.values())) < count:
        sentence = grammar.draw_sentence(rng, held_out=True)
        if len(made[sentence.register]) < count:
            made[sentence.register].append(sentence.text())
    return made


def _cut(model: CoordinateModel, tokenizer: Any, text: str, length: int) -> list[int]:
    return encoded(tokenizer, text)[: 1 + min(length, model.sizes.context - 1)]


def _words(record: Any) -> str:
    if record.kind == "text":
        return record.text
    return "\n".join(one["content"] for one in record.messages)
