"""48 operations of mathematics: arithmetic, digits, divisors and primes, combinatorics, algebra and plane geometry."""

# one operation a row is what makes the table readable
# ruff: noqa: E501

from __future__ import annotations

import math

from geonb.coordinates.continual.operation import domain


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1))


def _prime_factors(n: int) -> list[int]:
    return [d for d in _divisors(n) if _is_prime(d)]


def _next_prime(n: int) -> int:
    return next(p for p in range(n + 1, 2 * n + 3) if _is_prime(p))


def _fibonacci(n: int, modulus: int) -> int:
    """F_n modulo `modulus`, F_0 = 0 and F_1 = 1."""
    a, b = 0, 1
    for _ in range(n):
        a, b = b, (a + b) % modulus
    return a


def _euclid_steps(a: int, b: int) -> int:
    """Divisions that Euclid's algorithm makes on (a, b)."""
    steps = 0
    while b:
        a, b, steps = b, a % b, steps + 1
    return steps


def _collatz_steps(n: int) -> int:
    """Steps of n -> n/2 or 3n + 1 until 1."""
    steps = 0
    while n != 1:
        n, steps = (3 * n + 1 if n % 2 else n // 2), steps + 1
    return steps


def _in_base(n: int, base: int) -> str:
    digits = ""
    while n >= base:
        n, digit = divmod(n, base)
        digits = f"{digit}{digits}"
    return f"{n}{digits}"


def _roman(n: int) -> str:
    signs = (
        (1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"), (9, "IX"),
        (5, "V"), (4, "IV"), (1, "I"),
    )  # fmt: skip
    written = ""
    for value, sign in signs:
        count, n = divmod(n, value)
        written += count * sign
    return written


def _to_square(n: int) -> int:
    below = math.isqrt(n)
    return min(n - below**2, (below + 1) ** 2 - n)


TWO, ONE_TO, BIG = (0, 99), (1, 99), (0, 9999)

# fmt: off
OPERATIONS = domain("mathematics", [
    ("sum", "total", "result of adding", lambda a, b: a + b, TWO, TWO),
    ("difference", "gap between", "distance on the number line", lambda a, b: abs(a - b), TWO, TWO),
    ("product", "result of multiplying", "so many times", lambda a, b: a * b, TWO, TWO),
    ("whole quotient", "whole part of the division", "how often it goes in", lambda a, b: a // b, (0, 999), (1, 30)),
    ("remainder", "rest of the division", "what is left over when shared", lambda a, b: a % b, (0, 999), (1, 30)),
    ("greatest common divisor", "largest shared factor", "highest number dividing both", math.gcd, ONE_TO, ONE_TO),
    ("least common multiple", "smallest shared multiple", "first number both divide", math.lcm, ONE_TO, ONE_TO),
    ("maximum", "larger one", "greater of the pair", max, TWO, TWO),
    ("minimum", "smaller one", "lesser of the pair", min, TWO, TWO),
    ("midpoint rounded down", "average without the fraction", "floor of the mean", lambda a, b: (a + b) // 2, TWO, TWO),
    ("square", "second power", "number times itself", lambda n: n * n, (0, 999)),
    ("last three digits of the cube", "third power modulo 1000", "cube without its thousands", lambda n: n**3 % 1000, (0, 999)),
    ("integer square root", "root rounded down", "largest number whose square fits", math.isqrt, BIG),
    ("digit sum", "sum of the figures", "digits added up", lambda n: sum(map(int, str(n))), BIG),
    ("digital root", "repeated sum of the figures", "figures added until one is left", lambda n: 1 + (n - 1) % 9 if n else 0, BIG),
    ("digit product", "product of the figures", "digits multiplied", lambda n: math.prod(map(int, str(n))), BIG),
    ("reversal", "digits backwards", "mirrored number", lambda n: int(str(n)[::-1]), (0, 99999)),
    ("binary length", "bits needed", "size in base two", int.bit_length, BIG),
    ("binary ones", "bits set", "ones in base two", int.bit_count, BIG),
    ("number of divisors", "divisor count", "how many numbers divide it", lambda n: len(_divisors(n)), (1, 999)),
    ("sum of divisors", "divisor total", "its factors added up", lambda n: sum(_divisors(n)), (1, 999)),
    ("totient", "count of coprime residues", "how many below share no factor",
     lambda n: sum(math.gcd(n, k) == 1 for k in range(1, n + 1)), (1, 999)),
    ("largest prime factor", "greatest prime divisor", "top prime in it", lambda n: _prime_factors(n)[-1], (2, 999)),
    ("smallest prime factor", "least prime divisor", "first prime in it", lambda n: _prime_factors(n)[0], (2, 999)),
    ("next prime", "prime that follows", "first prime above", _next_prime, (0, 999)),
    ("primes up to", "prime count", "how many primes until", lambda n: sum(map(_is_prime, range(n + 1))), (0, 999)),
    ("prime test", "primality", "whether only one and itself divide it", _is_prime, (0, 999)),
    ("triangular number", "sum from one up to", "dots in a triangle of side", lambda n: n * (n + 1) // 2, (0, 999)),
    ("fibonacci number modulo 1000", "rabbit number without thousands", "golden sequence term, last three digits",
     lambda n: _fibonacci(n, 1000), (0, 400)),
    ("zeros ending the factorial", "trailing noughts of n factorial", "power of ten in the factorial",
     lambda n: sum(n // 5**k for k in range(1, 6)), (0, 999)),
    ("binomial coefficient", "ways to choose", "combinations", math.comb, (0, 20), (0, 20)),
    ("power modulo 97", "modular power with modulus 97", "exponentiation, rest by 97", lambda a, b: pow(a, b, 97), TWO, TWO),
    ("sum of squares", "squares added", "both squared and joined", lambda a, b: a * a + b * b, TWO, TWO),
    ("difference of squares", "squares subtracted", "gap of the second powers", lambda a, b: abs(a * a - b * b), TWO, TWO),
    ("hypotenuse rounded down", "long side of the right triangle", "floor of the diagonal",
     lambda a, b: math.isqrt(a * a + b * b), ONE_TO, ONE_TO),
    ("median of three", "middle value", "one between the other two", lambda a, b, c: sorted((a, b, c))[1], TWO, TWO, TWO),
    ("range of three", "spread of the values", "largest less smallest", lambda a, b, c: max(a, b, c) - min(a, b, c), TWO, TWO, TWO),
    ("discriminant", "b squared less four a c", "what decides the roots", lambda a, b, c: b * b - 4 * a * c, (1, 30), (0, 30), (0, 30)),
    ("linear function value", "a x plus b", "height of the line", lambda a, x, b: a * x + b, (0, 20), (0, 20), (0, 99)),
    ("steps of euclid", "divisions until the divisor is found", "rounds of the oldest algorithm", _euclid_steps, ONE_TO, ONE_TO),
    ("collatz steps", "halving and tripling steps", "length of the hailstone flight", _collatz_steps, (1, 999)),
    ("percentage rounded down", "percent of", "so many hundredths of", lambda p, n: p * n // 100, (0, 100), (0, 999)),
    ("base seven", "digits in the septenary system", "written with seven figures", lambda n: _in_base(n, 7), BIG),
    ("length of the roman numeral", "signs in roman writing", "letters a roman stonecutter needs", lambda n: len(_roman(n)), (1, 999)),
    ("inverse modulo 997", "modular reciprocal", "multiplier that gives rest one by 997", lambda n: pow(n, -1, 997), (1, 996)),
    ("distance to a square", "gap to the nearest square number", "how far from a perfect square", _to_square, BIG),
    ("rectangle perimeter", "way around the rectangle", "fence of a field", lambda a, b: 2 * (a + b), ONE_TO, ONE_TO),
    ("twice the lattice area", "crossed area of the points", "size of the determinant of two by two",
     lambda a, b, c, d: abs(a * d - b * c), (0, 30), (0, 30), (0, 30), (0, 30)),
])
# fmt: on
