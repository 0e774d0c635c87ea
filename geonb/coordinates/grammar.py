"""A seeded grammar of sentences with known attributes: minimal pairs, compositions and dialogues, with held-out contents.

A content is (person, verb, thing, place), 1,769,472 of them; an attribute changes how it is said and nothing else. Whether a
content is held out follows from its hash, so the two sides never share one whatever the seed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

PERSONS = (
    "actor baker barber builder butcher captain carpenter clerk cook dancer doctor driver farmer fisher gardener guard guest "
    "hunter janitor judge lawyer major mason mayor merchant miner nurse officer painter pilot plumber poet porter potter printer "
    "rider sailor scholar singer smith soldier student surgeon tailor teacher trader waiter writer"
).split()
# base, past: what is said of somebody else in the present ends in s
VERBS = (
    "admire:admired borrow:borrowed bring:brought build:built carry:carried choose:chose clean:cleaned close:closed "
    "collect:collected count:counted cover:covered draw:drew empty:emptied examine:examined fetch:fetched find:found "
    "forget:forgot guard:guarded hide:hid hold:held keep:kept lift:lifted lose:lost mend:mended move:moved need:needed "
    "offer:offered open:opened paint:painted polish:polished sell:sold weigh:weighed"
).split()
THINGS = (
    "anchor apple arrow bag barrel basket bell blanket boat book bottle bowl box bridge brush bucket candle chair chest clock "
    "coat coin cup curtain desk door drum engine fence flag flute gate glove hammer hat jar kettle key ladder lamp letter map "
    "mirror needle picture rope shovel table"
).split()
PLACES = (
    "at_the_market at_the_station behind_the_barn behind_the_church beside_the_river by_the_fire by_the_harbour in_the_attic "
    "in_the_cellar in_the_field in_the_garden in_the_hall in_the_kitchen in_the_library in_the_square in_the_tower in_the_valley "
    "near_the_border near_the_bridge on_the_hill on_the_island on_the_roof under_the_bridge under_the_oak"
).split()
ATTRIBUTES = {
    "tense": ("present", "past", "future"),
    "number": ("one", "many"),
    "polarity": ("affirmed", "denied"),
    "register": ("plain", "formal", "casual"),
    "mood": ("even", "glad", "grudging"),
}
_ASPECTS = {
    "colour": ("red", "blue", "green", "black", "white"),
    "age": ("a year old", "ten years old", "very old", "quite new"),
    "weight": ("light", "heavy", "as light as a feather", "far too heavy"),
    "price": ("cheap", "two coins", "a small fortune", "more than it looks"),
}
_HELD_OUT = 10  # one content in that many


@dataclass(frozen=True, slots=True)
class Sentence:
    """What is said (indices) and how (a value of each attribute; the first one is the unmarked)."""

    content: tuple[int, int, int, int]
    tense: str = "present"
    number: str = "one"
    polarity: str = "affirmed"
    register: str = "plain"
    mood: str = "even"

    def text(self) -> str:
        """The sentence.

        >>> Sentence((1, 7, 19, 9), tense="past", polarity="denied").text()
        'The baker did not close the clock in the field.'
        """
        person, verb, thing, place = self.content
        base, past = VERBS[verb].split(":")
        many, denied = self.number == "many", self.polarity == "denied"
        if self.tense == "future":
            said = f"will not {base}" if denied else f"will {base}"
        elif self.tense == "past":
            said = f"did not {base}" if denied else past
        elif denied:
            said = f"{'do' if many else 'does'} not {base}"
        else:
            said = base if many else _third(base)
        adverb = {"even": "", "glad": "gladly ", "grudging": "grudgingly "}[self.mood]
        body = f"the {PERSONS[person]}{'s' if many else ''} {adverb}{said} the {THINGS[thing]} {PLACES[place].replace('_', ' ')}"
        if self.register == "formal":
            return f"It is hereby noted that {body}."
        if self.register == "casual":
            return f"Well, {body}, you know."
        return f"{body[0].upper()}{body[1:]}."


def _third(verb: str) -> str:
    if verb.endswith(("s", "sh", "ch", "x")):
        return verb + "es"
    return verb[:-1] + "ies" if verb.endswith("y") and verb[-2] not in "aeiou" else verb + "s"


def is_held_out(content: tuple[int, ...]) -> bool:
    """Whether a content belongs to the held-out side, by its hash."""
    return hashlib.sha256(repr(tuple(map(int, content))).encode()).digest()[0] % _HELD_OUT == 0


def draw_content(rng: np.random.Generator, *, held_out: bool) -> tuple[int, int, int, int]:
    """A content of the wanted side."""
    sizes = (len(PERSONS), len(VERBS), len(THINGS), len(PLACES))
    while True:
        person, verb, thing, place = (int(rng.integers(size)) for size in sizes)
        if is_held_out((person, verb, thing, place)) == held_out:
            return person, verb, thing, place


def draw_sentence(rng: np.random.Generator, *, held_out: bool) -> Sentence:
    """A sentence with every attribute drawn."""
    values = {name: str(rng.choice(allowed)) for name, allowed in ATTRIBUTES.items()}
    return Sentence(draw_content(rng, held_out=held_out), **values)


def minimal_pair(rng: np.random.Generator, attribute: str, *, held_out: bool) -> tuple[Sentence, Sentence]:
    """Two sentences that differ in `attribute` alone."""
    first, second = (str(one) for one in rng.choice(ATTRIBUTES[attribute], size=2, replace=False))
    one = draw_sentence(rng, held_out=held_out)
    return replace(one, **{attribute: first}), replace(one, **{attribute: second})


def composition(rng: np.random.Generator, *, held_out: bool) -> tuple[Sentence, Sentence, Sentence]:
    """One content with two marked attributes, and with either of them alone: (both, first, second).

    Held-out compositions use pairs of attribute values that training never joins.
    """
    while True:
        names = [str(one) for one in rng.choice(list(ATTRIBUTES), size=2, replace=False)]
        marks = {name: str(rng.choice(ATTRIBUTES[name][1:])) for name in sorted(names)}
        if is_held_out(tuple(ord(letter) for letter in "+".join(marks.values()))) == held_out:
            break
    plain = Sentence(draw_content(rng, held_out=held_out))
    first, second = ({name: value} for name, value in marks.items())
    return replace(plain, **marks), replace(plain, **first), replace(plain, **second)


def dialogue(rng: np.random.Generator, turns: int, *, held_out: bool) -> list[str]:
    """`turns` exchanges about one thing, its answers consistent from the first to the last."""
    content = draw_content(rng, held_out=held_out)
    person, thing = PERSONS[content[0]], THINGS[content[2]]
    facts = {aspect: str(rng.choice(values)) for aspect, values in _ASPECTS.items()}
    spoken = []
    for place in range(turns):
        aspect = str(rng.choice(list(facts)))
        opening = f"The {person} has a {thing}. " if place == 0 else ""
        spoken.append(
            f"User: {opening}What is the {aspect} of the {thing}?\nAssistant: The {thing} is {facts[aspect]}.\n"
        )
    return spoken


def held_out_texts(count: int, rng: np.random.Generator) -> list[str]:
    """`count` texts with contents that no training saw: a sentence and a dialogue of two turns in turns."""
    return [
        "".join(dialogue(rng, 2, held_out=True)) if place % 2 else draw_sentence(rng, held_out=True).text()
        for place in range(count)
    ]
