"""32 operations of chemistry: elements, bonds, stoichiometry, solutions, gases, electrochemistry; nearest whole, halves up.

Standard atomic weights (abridged) and Pauling electronegativities of the elements up to xenon; R = 8.314 J/(mol K),
F = 96 485 C/mol, molar volume 22.414 l at 0 degrees Celsius and 101.325 kPa.
"""

# one operation a row is what makes the table readable
# ruff: noqa: E501

from __future__ import annotations

import math
from collections.abc import Sequence

from geonb.coordinates.continual.operation import OneOf, domain, near

SYMBOLS: Sequence[str] = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh "
    "Pd Ag Cd In Sn Sb Te I Xe"
).split()
# technetium has no stable nuclide: the mass number of its longest-lived one stands in
MASS: dict[str, float] = dict(zip(SYMBOLS, (
    1.008, 4.003, 6.94, 9.012, 10.81, 12.011, 14.007, 15.999, 18.998, 20.180, 22.990, 24.305, 26.982, 28.085, 30.974, 32.06, 35.45,
    39.95, 39.098, 40.078, 44.956, 47.867, 50.942, 51.996, 54.938, 55.845, 58.933, 58.693, 63.546, 65.38, 69.723, 72.630, 74.922,
    78.971, 79.904, 83.798, 85.468, 87.62, 88.906, 91.224, 92.906, 95.95, 97.0, 101.07, 102.906, 106.42, 107.868, 112.414, 114.818,
    118.710, 121.760, 127.60, 126.904, 131.293,
), strict=True))  # fmt: skip
# in hundredths; helium, neon and argon have none
PAULING: dict[str, float] = dict(zip((one for one in SYMBOLS if one not in ("He", "Ne", "Ar")), (
    220, 98, 157, 204, 255, 304, 344, 398, 93, 131, 161, 190, 219, 258, 316, 82, 100, 136, 154, 163, 166, 155, 183, 188, 191, 190,
    165, 181, 201, 218, 255, 296, 300, 82, 95, 122, 133, 160, 216, 190, 220, 228, 220, 193, 169, 178, 196, 205, 210, 266, 260,
), strict=True))  # fmt: skip
NUMBER = {symbol: place + 1 for place, symbol in enumerate(SYMBOLS)}
NOBLE = (0, 2, 10, 18, 36, 54)
MAIN_GROUP = tuple(one for one in SYMBOLS if not 20 < NUMBER[one] < 31 and not 38 < NUMBER[one] < 49)
ANY, BONDING, MAIN = OneOf(tuple(SYMBOLS)), OneOf(tuple(PAULING)), OneOf(MAIN_GROUP)
TWO, BIG, SMALL = (1, 99), (1, 999), (1, 9)
FARADAY, GAS = 96485.0, 8.314


def period(symbol: str) -> int:
    """The row of the periodic table."""
    return sum(NUMBER[symbol] > closed for closed in NOBLE)


def group(symbol: str) -> int:
    """The column of the periodic table, 1 to 18."""
    row, number = period(symbol), NUMBER[symbol]
    place = number - NOBLE[row - 1]
    left = 1 if row == 1 else 2
    return place if place <= left or row > 3 else 18 - (NOBLE[row] - number)


def valence(symbol: str) -> int:
    """Electrons in the outer shell of an element of a main group."""
    if symbol == "He":
        return 2
    column = group(symbol)
    return column if column < 3 else column - 10


def _greater(first: str, second: str, table: dict[str, float]) -> str:
    if table[first] == table[second]:
        return "equal"
    return first if table[first] > table[second] else second


# fmt: off
OPERATIONS = domain("chemistry", [
    ("grams of so many moles", "mass of an amount of an element", "what moles weigh", lambda e, n: near(n * MASS[e]), ANY, TWO),
    ("millimoles in so many grams", "amount in a mass of an element", "how much substance is weighed", lambda e, m: near(1000 * m / MASS[e]), ANY, TWO),
    ("protons in so many atoms", "positive charges of the nuclei", "nuclear charge times count", lambda e, n: n * NUMBER[e], ANY, TWO),
    ("mass number", "protons and neutrons", "nucleons with so many neutrons", lambda e, n: NUMBER[e] + n, ANY, (0, 80)),
    ("electrons of the ion", "shell electrons at a charge", "negative particles of a charged atom", lambda e, q: NUMBER[e] - q, OneOf(tuple(SYMBOLS[3:])), (-3, 3)),
    ("heavier element", "greater atomic weight", "which atom weighs more", lambda a, b: _greater(a, b, MASS), ANY, ANY),
    ("gap of atomic numbers", "places apart in the table", "difference of nuclear charges", lambda a, b: abs(NUMBER[a] - NUMBER[b]), ANY, ANY),
    ("same group", "shared column of the table", "whether they are chemical relatives", lambda a, b: group(a) == group(b), ANY, ANY),
    ("same period", "shared row of the table", "whether equally many shells are begun", lambda a, b: period(a) == period(b), ANY, ANY),
    ("more electronegative", "greater pauling value", "which atom pulls electrons harder", lambda a, b: _greater(a, b, PAULING), BONDING, BONDING),
    ("bond polarity in hundredths", "gap of the pauling values", "how unequal the sharing is", lambda a, b: abs(PAULING[a] - PAULING[b]), BONDING, BONDING),
    ("molar mass of a binary compound", "formula weight of two elements", "grams in a mole of both",
     lambda a, x, b, y: near(x * MASS[a] + y * MASS[b]), ANY, SMALL, ANY, SMALL),
    ("mass percent of the first", "share by weight in a one to one compound", "hundredths that the first contributes",
     lambda a, b: near(100 * MASS[a] / (MASS[a] + MASS[b])), ANY, ANY),
    ("valence electrons together", "outer electrons of both", "dots in a lewis picture", lambda a, b: valence(a) + valence(b), MAIN, MAIN),
    ("hydrogens of an alkane", "hydrogen atoms of a saturated chain", "h count when no bond is double", lambda c: 2 * c + 2, BIG),
    ("hydrogens of a hydrocarbon", "hydrogen atoms with rings and double bonds", "h count for carbons and unsaturation",
     lambda c, u: 2 * c + 2 - 2 * u, (10, 99), (0, 9)),
    ("molar mass of carbon hydrogen oxygen", "formula weight of an organic compound", "grams in a mole for c h o",
     lambda c, h, o: near(MASS["C"] * c + MASS["H"] * h + MASS["O"] * o), (1, 40), (1, 80), (0, 20)),
    ("quarters of oxygen molecules to burn", "o2 demand of a hydrocarbon times four", "air a flame needs, in quarters", lambda c, h: 4 * c + h, TWO, TWO),
    ("acidity in hundredths of ph", "ph of a strong acid in micromoles per litre", "sourness of fully split acid",
     lambda c: near(600 - 100 * math.log10(c)), (10, 9999)),
    ("poh in hundredths", "basicity from ph", "fourteen less the acidity", lambda p: 1400 - p, (0, 1400)),
    ("water to add in millilitres", "dilution volume", "how much to pour for a weaker solution",
     lambda c, v, d: near(v * c / d - v), (50, 99), TWO, (1, 49)),
    ("millimoles per litre", "concentration of grams of a molar mass in millilitres", "strength of the solution",
     lambda m, w, v: near(1e6 * m / (w * v)), TWO, (20, 300), (100, 999)),
    ("freezing point depression in millikelvin", "cryoscopy of millimoles in kilograms of water", "how much later it turns to ice",
     lambda n, w: near(1.86 * n / w), BIG, SMALL),
    ("osmotic pressure in kilopascals", "van 't hoff pressure at kelvins", "pull of millimoles per litre through a membrane",
     lambda c, t: near(c * GAS * t / 1000), BIG, (273, 323)),
    ("nernst shift in millivolts", "potential of a quotient at 25 degrees", "voltage for a ratio and electrons",
     lambda q, n: near(1000 * GAS * 298.15 / FARADAY * math.log(q) / n), BIG, (1, 4)),
    ("milligrams of copper plated", "faraday's law for copper", "metal from milliamperes and minutes",
     lambda i, t: near(i * t * 0.06 / FARADAY * MASS["Cu"] / 2 * 1000), BIG, BIG),
    ("gas volume in millilitres", "space of millimoles at standard conditions", "how much room an ideal gas takes", lambda n: near(22.414 * n), BIG),
    ("carbon dioxide from carbon", "grams of gas from grams burnt", "smoke of a piece of coal", lambda m: near(m * (MASS["C"] + 2 * MASS["O"]) / MASS["C"]), BIG),
    ("percent yield", "actual over theoretical", "share of the product obtained", lambda a, t: near(100 * a / t), TWO, (100, 999)),
    ("reaction enthalpy", "products less reactants", "heat balance from formation values", lambda r, p: p - r, (-999, 999), (-999, 999)),
    ("element after decays", "nucleus left by alpha and beta", "what remains when radiation has gone",
     lambda e, a, b: SYMBOLS[NUMBER[e] - 2 * a + b - 1], OneOf(tuple(SYMBOLS[9:50])), (1, 3), (0, 4)),
    ("buffer acidity in hundredths", "henderson hasselbalch", "ph of an acid with its salt",
     lambda k, a, b: near(k + 100 * math.log10(b / a)), (300, 1000), TWO, TWO),
])
# fmt: on
