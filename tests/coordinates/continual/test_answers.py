"""Answers against a second computation: other formulas, brute force, or values from tables that everybody has."""

# one oracle a row is what makes the table readable
# ruff: noqa: E501

from __future__ import annotations

import cmath
import itertools
import math
import statistics
from fractions import Fraction

import numpy as np
import pytest

from geonb.coordinates.continual import chemistry
from geonb.coordinates.continual.biology import CODE
from geonb.coordinates.continual.operations import by_name


def half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def bits(word):
    return np.array([int(letter) for letter in word])


def text_of(array):
    return "".join(str(int(one)) for one in array)


def sieve(limit):
    marks = np.ones(limit + 1, dtype=bool)
    marks[:2] = False
    for n in range(2, limit + 1):
        if marks[n]:
            marks[2 * n :: n] = False
    return marks


PRIMES = np.flatnonzero(sieve(2100))


def _partners(word):
    """Brackets that stay when every () is deleted again and again."""
    while "()" in word:
        word = word.replace("()", "")
    return len(word)


def _ring(rule, word):
    table = {f"{place:03b}": digit for place, digit in enumerate(f"{rule:08b}"[::-1])}
    ring = word[-1] + word + word[0]
    return sum(table[ring[place : place + 3]] == "1" for place in range(len(word)))


def _first_factor(n):
    return next(int(p) for p in PRIMES if n % p == 0)


ORACLES = {
    # mathematics
    "greatest common divisor": lambda a, b: max(d for d in range(1, 100) if a % d == 0 and b % d == 0),
    "least common multiple": lambda a, b: next(m for m in itertools.count(a, a) if m % b == 0),
    "maximum": lambda a, b: (a + b + abs(a - b)) // 2,
    "digital root": lambda n: _root(n),
    "binary ones": lambda n: bin(n).count("1"),
    "binary length": lambda n: len(bin(n)) - 2 if n else 0,
    "number of divisors": lambda n: sum(1 if d * d == n else 2 for d in range(1, math.isqrt(n) + 1) if n % d == 0),
    "totient": lambda n: round(n * math.prod(1 - Fraction(1, int(p)) for p in PRIMES if p <= n and n % p == 0)),
    "prime test": lambda n: "yes" if n in PRIMES else "no",
    "next prime": lambda n: int(PRIMES[np.searchsorted(PRIMES, n, side="right")]),
    "primes up to": lambda n: int((n >= PRIMES).sum()),
    "smallest prime factor": _first_factor,
    "binomial coefficient": lambda n, k: math.factorial(n) // (math.factorial(k) * math.factorial(n - k)) if k <= n else 0,
    "zeros ending the factorial": lambda n: len(str(math.factorial(n))) - len(str(math.factorial(n)).rstrip("0")),
    "triangular number": lambda n: sum(range(n + 1)),
    "median of three": lambda a, b, c: statistics.median((a, b, c)),
    "base seven": lambda n: np.base_repr(n, 7),
    "inverse modulo 997": lambda n: next(k for k in range(997) if n * k % 997 == 1),
    "distance to a square": lambda n: min(abs(n - k * k) for k in range(102)),
    "power modulo 97": lambda a, b: a**b % 97,
    # physics: exact fractions, or another route to the same law
    "weight in newtons": lambda m: half_up(Fraction(981, 100) * m),
    "kinetic energy in joules": lambda m, v: half_up(Fraction(m * v * v, 2)),
    "braking distance in metres": lambda v, a: half_up(Fraction(v * 10, 36) ** 2 / (2 * a)),
    "parallel resistance": lambda a, b: half_up(1 / (Fraction(1, a) + Fraction(1, b))),
    "image distance": lambda f, u: half_up(1 / (Fraction(1, f) - Fraction(1, u))),
    "voltage divider in millivolts": lambda u, a, b: half_up(Fraction(u, a + b) * b * 1000),
    "fahrenheit": lambda c: half_up((c + 40) * Fraction(9, 5) - 40),
    "range of a throw": lambda v, a: math.floor(2 * (cmath.rect(v, math.radians(a)).real * cmath.rect(v, math.radians(a)).imag) / 9.81 + 0.5),
    "impact speed from metres": lambda h: math.floor(9.81 * math.sqrt(2 * h / 9.81) + 0.5),
    "percent left after decay": lambda t, h: math.floor(100 * math.exp(-math.log(2) * t / h) + 0.5 + 1e-9),
    "coil reactance": lambda h, f: math.floor(abs(1j * math.tau * f * h / 1000) + 0.5),
    # chemistry
    "quarters of oxygen molecules to burn": lambda c, h: 2 * (2 * c) + h,
    "percent yield": lambda a, t: half_up(Fraction(100 * a, t)),
    "acidity in hundredths of ph": lambda c: math.floor(-100 * math.log(c * 1e-6) / math.log(10) + 0.5 + 1e-9),
    "poh in hundredths": lambda p: 1400 - p,
    "water to add in millilitres": lambda c, v, d: half_up(Fraction(c * v, d)) - v,
    "hydrogens of a hydrocarbon": lambda c, u: 2 * (c - u) + 2,
    "gas volume in millilitres": lambda n: half_up(Fraction(22414, 1000) * n),
    # biology
    "reverse complement": lambda w: "".join({"A": "T", "T": "A", "G": "C", "C": "G"}[b] for b in reversed(w)),
    "transcript of the template": lambda w: "".join({"A": "U", "T": "A", "G": "C", "C": "G"}[b] for b in w),
    "hydrogen bonds": lambda w: sum({"A": 2, "T": 2, "G": 3, "C": 3}[b] for b in w),
    "melting temperature": lambda w: sum({"A": 2, "T": 2, "G": 4, "C": 4}[b] for b in w),
    "transitions": lambda a, b: sum({x, y} in ({"A", "G"}, {"C", "T"}) for x, y in zip(a, b, strict=True)),
    "transversions": lambda a, b: sum(x != y and {x, y} not in ({"A", "G"}, {"C", "T"}) for x, y in zip(a, b, strict=True)),
    "carriers per thousand": lambda q: half_up(1000 * (1 - Fraction(q, 1000) ** 2 - Fraction(1000 - q, 1000) ** 2)),
    "percent all dominant": lambda a, b: _crossed(a, b, lambda child: all(any(x.isupper() for x in locus) for locus in child)),
    "percent all recessive": lambda a, b: _crossed(a, b, lambda child: all(all(x.islower() for x in locus) for locus in child)),
    "simpson diversity in hundredths": lambda *n: half_up(100 * sum(
        Fraction(n[i] * n[j], sum(n) ** 2) for i in range(3) for j in range(3) if i != j)),
    "enzyme rate": lambda v, s, k: half_up(v / (1 + Fraction(k, s))),
    "cells after doublings": lambda n, d: n << d,
    # logic: arrays instead of rules for letters
    "and": lambda a, b: text_of(np.minimum(bits(a), bits(b))),
    "nor": lambda a, b: text_of(1 - np.maximum(bits(a), bits(b))),
    "exclusive or": lambda a, b: text_of((bits(a) + bits(b)) % 2),
    "implication": lambda a, b: text_of(bits(a) <= bits(b)),
    "if then else": lambda a, b, c: text_of(np.where(bits(a), bits(b), bits(c))),
    "two of three": lambda a, b, c: text_of(np.median([bits(a), bits(b), bits(c)], axis=0)),
    "gray value": lambda w: int(text_of(np.bitwise_xor.accumulate(bits(w))), 2),
    "signed value": lambda w: (int(w, 2) + 256) % 512 - 256,
    "changes": lambda w: int(np.abs(np.diff(bits(w))).sum()),
    "parity": lambda w: "odd" if np.bitwise_xor.reduce(bits(w)) else "even",
    "longest run of truths": lambda w: max(map(len, w.split("0"))),
    "unmatched brackets": _partners,
    "rule 110": lambda w: _ring(110, w),
    "rule 30": lambda w: _ring(30, w),
    "binary adder": lambda a, b: f"{sum(2 ** (4 - i) * (int(a[i]) + int(b[i])) for i in range(5)):b}".zfill(6),
    "binary comparator": lambda a, b: "yes" if a < b else "no",
    "kleene implication": lambda a, b: "".join(_KLEENE[x, y] for x, y in zip(a, b, strict=True)),
    "lukasiewicz implication": lambda a, b: "".join("T" if (x, y) == ("U", "U") else _KLEENE[x, y] for x, y in zip(a, b, strict=True)),
    "subset": lambda a, b: "yes" if (bits(a) <= bits(b)).all() else "no",
    "disjoint": lambda a, b: "yes" if bits(a) @ bits(b) == 0 else "no",
}  # fmt: skip
# Kleene's table, written out
_KLEENE = dict(zip(itertools.product("TUF", repeat=2), "TUFTUUTTT", strict=True))


def _root(n):
    while n > 9:
        n = sum(map(int, str(n)))
    return n


def _crossed(first, second, wanted):
    """Every one of the 64 children, counted."""
    gametes = [list(itertools.product(*(parent[i : i + 2] for i in (0, 2, 4)))) for parent in (first, second)]
    children = [list(zip(a, b, strict=True)) for a in gametes[0] for b in gametes[1]]
    return half_up(Fraction(100 * sum(map(wanted, children)), len(children)))


@pytest.mark.parametrize("name", ORACLES)
def test_the_answer_is_that_of_a_second_computation(name):
    one, rng = by_name(name), np.random.default_rng(2)
    for _ in range(60):
        inputs = tuple(argument.draw(rng) for argument in one.arguments)
        assert one.answer(inputs) == str(ORACLES[name](*inputs)), inputs


KNOWN = {
    # physics
    ("photon energy in millielectronvolts", (500,)): "2480",
    ("radio wavelength in centimetres", (100,)): "300",
    ("pendulum period in milliseconds", (100,)): "2006",
    ("pressure under water in kilopascals", (10,)): "199",
    ("angle of refraction", (30, 150)): "19",
    ("gas pressure in kilopascals", (1, 273, 22)): "103",
    ("doppler pitch", (440, 0)): "440",
    # chemistry
    ("grams of so many moles", ("Fe", 1)): "56",
    ("heavier element", ("Ar", "K")): "Ar",
    ("heavier element", ("Te", "I")): "Te",
    ("more electronegative", ("O", "F")): "F",
    ("molar mass of a binary compound", ("H", 2, "O", 1)): "18",
    ("molar mass of carbon hydrogen oxygen", (6, 12, 6)): "180",
    ("mass percent of the first", ("Na", "Cl")): "39",
    ("same group", ("C", "Sn")): "yes",
    ("same group", ("He", "Ne")): "yes",
    ("same period", ("K", "Kr")): "yes",
    ("valence electrons together", ("C", "O")): "10",
    ("electrons of the ion", ("Ca", 2)): "18",
    ("element after decays", ("Sn", 1, 2)): "Sn",
    ("nernst shift in millivolts", (10, 1)): "59",
    ("nernst shift in millivolts", (10, 2)): "30",
    ("carbon dioxide from carbon", (12,)): "44",
    ("buffer acidity in hundredths", (476, 50, 50)): "476",
    # 96 485 C (1000 mA for 96 485 s) plate half a mole of copper: 999 mA for 999 minutes are 59 880 C
    ("milligrams of copper plated", (999, 999)): "19719",
    # biology
    ("translation", ("ATGTAA",)): "M*",
    ("synonymous codons", ("CTG", "TTA")): "yes",
    ("restriction palindrome", ("GATC",)): "yes",
    ("trypsin pieces", ("AKRPGKAA",)): "3",
    ("peptide mass in dalton", ("GGGG",)): "246",
    ("extinction at 280 nanometres", ("WYAAA",)): "6990",
    ("side chain charge", ("KRDEK",)): "1",
    ("body mass index in tenths", (70, 175)): "229",
    ("mean arterial pressure", (120, 80)): "93",
    ("basal metabolism in kilocalories", (70,)): "1694",
    ("hydropathy in tenths", ("IIII",)): "180",
    # mathematics and logic
    ("fibonacci number modulo 1000", (20,)): "765",
    ("collatz steps", (27,)): "111",
    ("length of the roman numeral", (888,)): "12",
    ("hypotenuse rounded down", (3, 4)): "5",
    ("multiplexer", ("101", "00000100")): "1",
}  # fmt: skip


@pytest.mark.parametrize(("name", "inputs"), KNOWN)
def test_the_answer_is_the_known_value(name, inputs):
    assert by_name(name).answer(inputs) == KNOWN[name, inputs]


def test_the_genetic_code_has_its_known_degeneracies():
    counts = {residue: list(CODE.values()).count(residue) for residue in set(CODE.values())}
    assert len(CODE) == 64 and counts["*"] == 3 and counts["M"] == counts["W"] == 1
    assert all(counts[residue] == 6 for residue in "LRS") and all(counts[residue] == 4 for residue in "AGPTV")


def test_the_tables_of_elements_are_in_order():
    masses = list(chemistry.MASS.values())
    falls = [chemistry.SYMBOLS[place] for place in range(53) if masses[place] > masses[place + 1]]
    # the known inversions of the periodic table up to xenon
    assert len(masses) == 54 and falls == ["Ar", "Co", "Te"]
    assert max(chemistry.PAULING, key=chemistry.PAULING.__getitem__) == "F"
    columns = {
        1: "H Li Na K Rb",
        2: "Be Mg Ca Sr",
        13: "B Al Ga In",
        17: "F Cl Br I",
        18: "He Ne Ar Kr Xe",
        11: "Cu Ag",
    }
    for column, members in columns.items():
        assert [one for one in chemistry.SYMBOLS if chemistry.group(one) == column] == members.split()
    assert [sum(chemistry.period(one) == row for one in chemistry.SYMBOLS) for row in range(1, 6)] == [2, 8, 8, 18, 18]
