"""32 operations of biology: sequences, peptides, genetics, growth and physiology; rounded to the nearest whole, halves up.

The standard genetic code; average residue masses in dalton; Kyte and Doolittle 1982 for hydropathy.
"""

# one operation a row is what makes the table readable
# ruff: noqa: E501

from __future__ import annotations

from itertools import groupby, pairwise, product

from geonb.coordinates.continual.operation import OneOf, Word, domain, near

DNA = {length: Word("ACGT", length) for length in (3, 4, 5, 6, 8)}
# residue: average mass in dalton, hydropathy in tenths
RESIDUES = {
    "G": (57.05, -4), "A": (71.08, 18), "S": (87.08, -8), "P": (97.12, -16), "V": (99.13, 42), "T": (101.10, -7), "C": (103.14, 25),
    "L": (113.16, 38), "I": (113.16, 45), "N": (114.10, -35), "D": (115.09, -35), "Q": (128.13, -35), "K": (128.17, -39),
    "E": (129.12, -35), "M": (131.19, 19), "H": (137.14, -32), "F": (147.18, 28), "R": (156.19, -45), "Y": (163.18, -13),
    "W": (186.21, -9),
}  # fmt: skip
WATER = 18.015
PEPTIDE = {length: Word("".join(RESIDUES), length) for length in (4, 5, 8)}
# the 64 codons in the order T, C, A, G of each place
CODE = dict(
    zip(
        map("".join, product("TCAG", repeat=3)),
        "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
        strict=True,
    )
)
GENOTYPES = OneOf(tuple(map("".join, product(("AA", "Aa", "aa"), ("BB", "Bb", "bb"), ("CC", "Cc", "cc")))))
_PARTNER = str.maketrans("ACGT", "TGCA")
_PURINES = "AG"
TWO, BIG = (1, 99), (1, 999)


def _strong(word: str) -> int:
    return word.count("G") + word.count("C")


def _changes(first: str, second: str, *, same_kind: bool) -> int:
    """Places that differ and stay purine or pyrimidine (transitions), or do not (transversions)."""
    pairs = zip(first, second, strict=True)
    return sum(a != b and ((a in _PURINES) == (b in _PURINES)) == same_kind for a, b in pairs)


def _peptides(chain: str) -> int:
    """Pieces that trypsin leaves: it cuts after K and R, not before P."""
    return 1 + sum(a in "KR" and b != "P" for a, b in pairwise(chain))


def _offspring(first: str, second: str, wanted) -> int:
    """Percent of the children of two parents for whose three pairs of alleles `wanted` holds (independent loci)."""
    share = 1.0
    for place in (0, 2, 4):
        children = [a + b for a in first[place : place + 2] for b in second[place : place + 2]]
        share *= sum(map(wanted, children)) / 4
    return near(100 * share)


def _diversity(*counts: int) -> int:
    total = sum(counts)
    return near(100 * (1 - sum((count / total) ** 2 for count in counts)))


# fmt: off
OPERATIONS = domain("biology", [
    ("complement strand", "pairing bases", "opposite letters of the helix", lambda w: w.translate(_PARTNER), DNA[6]),
    ("reverse complement", "opposite strand read backwards", "other strand from its own start", lambda w: w.translate(_PARTNER)[::-1], DNA[6]),
    ("transcript of the template", "messenger from the template strand", "rna that pairs with it", lambda w: w.translate(_PARTNER).replace("T", "U"), DNA[6]),
    ("transcript of the coding strand", "messenger like the coding strand", "rna with the same letters", lambda w: w.replace("T", "U"), DNA[6]),
    ("translation", "residues of two codons", "protein letters for the gene", lambda w: CODE[w[:3]] + CODE[w[3:]], DNA[6]),
    ("gc percent", "share of guanine and cytosine", "strong bases in a hundred", lambda w: near(100 * _strong(w) / len(w)), DNA[8]),
    ("melting temperature", "wallace rule", "degrees at which a primer lets go", lambda w: 2 * len(w) + 2 * _strong(w), DNA[8]),
    ("purine count", "number of two-ring bases", "adenines and guanines together", lambda w: sum(b in _PURINES for b in w), DNA[8]),
    ("hydrogen bonds", "bonds between the strands", "rungs holding the helix", lambda w: 2 * len(w) + _strong(w), DNA[8]),
    ("longest base run", "length of the longest repeat of one base", "most equal letters in a row", lambda w: max(len(list(run)) for _, run in groupby(w)), DNA[8]),
    ("restriction palindrome", "own reverse complement", "whether both strands read alike", lambda w: w == w.translate(_PARTNER)[::-1], DNA[4]),
    ("mutations", "bases that differ", "point changes between strands", lambda a, b: sum(x != y for x, y in zip(a, b, strict=True)), DNA[5], DNA[5]),
    ("transitions", "changes within a ring class", "purine to purine and the like", lambda a, b: _changes(a, b, same_kind=True), DNA[6], DNA[6]),
    ("transversions", "changes across ring classes", "purine against pyrimidine swaps", lambda a, b: _changes(a, b, same_kind=False), DNA[6], DNA[6]),
    ("synonymous codons", "same residue from both codons", "whether the protein stays equal", lambda a, b: CODE[a] == CODE[b], DNA[3], DNA[3]),
    ("side chain charge", "lysine and arginine less aspartate and glutamate", "net electric sign of residues at neutral ph",
     lambda p: sum((r in "KR") - (r in "DE") for r in p), PEPTIDE[5]),
    ("peptide mass in dalton", "average mass of the chain with water", "what the spectrometer weighs",
     lambda p: near(sum(RESIDUES[r][0] for r in p) + WATER), PEPTIDE[4]),
    ("hydropathy in tenths", "kyte doolittle total", "how much the chain shuns water", lambda p: sum(RESIDUES[r][1] for r in p), PEPTIDE[4]),
    ("trypsin pieces", "fragments after digestion", "cuts behind lysine and arginine plus one", _peptides, PEPTIDE[8]),
    ("extinction at 280 nanometres", "absorbance of tryptophan and tyrosine", "ultraviolet molar shadow",
     lambda p: 5500 * p.count("W") + 1490 * p.count("Y"), PEPTIDE[5]),
    ("carriers per thousand", "heterozygotes for an allele frequency", "two p q of the population", lambda q: near(2 * q * (1000 - q) / 1000), BIG),
    ("affected per thousand", "homozygotes for an allele frequency", "q squared of the population", lambda q: near(q * q / 1000), BIG),
    ("percent all dominant", "children with three dominant traits", "offspring showing every capital",
     lambda a, b: _offspring(a, b, lambda child: child != child.lower()), GENOTYPES, GENOTYPES),
    ("percent all recessive", "children with three recessive traits", "offspring showing no capital",
     lambda a, b: _offspring(a, b, lambda child: child == child.lower()), GENOTYPES, GENOTYPES),
    ("cells after doublings", "colony after divisions", "bacteria once they split so often", lambda n, d: n * 2**d, TWO, (0, 12)),
    ("logistic step", "next generation under a capacity", "crowded population one season on",
     lambda n, r, k: near(n + r / 100 * n * (1 - n / k)), TWO, TWO, (100, 200)),
    ("chapman estimate", "population from marks and recaptures", "fish in the lake by tagging",
     lambda m, c, r: near((m + 1) * (c + 1) / (r + 1) - 1), TWO, TWO, (1, 20)),
    ("enzyme rate", "michaelis menten velocity", "turnover at this substrate", lambda v, s, k: near(v * s / (k + s)), BIG, TWO, TWO),
    ("body mass index in tenths", "kilograms over metres squared", "weight for height figure", lambda m, h: near(10 * m / (h / 100) ** 2), (40, 150), (140, 210)),
    ("mean arterial pressure", "diastolic and a third of the pulse", "average push of the blood", lambda s, d: near(d + (s - d) / 3), (90, 180), (50, 89)),
    ("basal metabolism in kilocalories", "kleiber's law for kilograms", "daily burn of an animal at rest", lambda m: near(70 * m**0.75), BIG),
    ("simpson diversity in hundredths", "evenness of three species", "chance that two animals differ", _diversity, TWO, TWO, TWO),
])
# fmt: on
