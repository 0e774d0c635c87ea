"""36 operations of physics; answers are rounded to the nearest whole number (halves up) in the unit that the name states.

g = 9.81 m/s2, R = 8.314 J/(mol K), c = 299 792 458 m/s, hc = 1 239 841.98 meV nm, speed of sound 343 m/s, sea water 1025 kg/m3;
water holds 4.186 J/(g K).
"""

# one operation a row is what makes the table readable
# ruff: noqa: E501

from __future__ import annotations

import math

from geonb.coordinates.continual.operation import domain, near

G, GAS, SOUND = 9.81, 8.314, 343
TWO, BIG = (1, 99), (1, 999)


def _sine(degrees: int) -> float:
    return math.sin(math.radians(degrees))


# fmt: off
OPERATIONS = domain("physics", [
    ("weight in newtons", "pull of gravity on kilograms", "force a scale feels", lambda m: near(G * m), BIG),
    ("kinetic energy in joules", "energy of motion", "work stored in speed", lambda m, v: near(m * v**2 / 2), TWO, TWO),
    ("potential energy in joules", "energy of height", "work stored by lifting", lambda m, h: near(m * G * h), TWO, TWO),
    ("momentum for kilometres per hour", "impulse of kilograms at road speed", "mass times pace in metric seconds",
     lambda m, v: near(m * v / 3.6), BIG, TWO),
    ("braking distance in metres", "way to stop from road speed", "metres until standstill",
     lambda v, a: near((v / 3.6) ** 2 / (2 * a)), (1, 200), (1, 12)),
    ("depth fallen after tenths of seconds", "free fall distance", "metres dropped in that time",
     lambda t: near(G * (t / 10) ** 2 / 2), BIG),
    ("impact speed from metres", "velocity after a fall", "how fast it hits the ground", lambda h: near(math.sqrt(2 * G * h)), BIG),
    ("fall time in milliseconds", "how long a fall takes", "duration of a drop", lambda h: near(1000 * math.sqrt(2 * h / G)), BIG),
    ("range of a throw", "how far a projectile flies", "reach of the cannon",
     lambda v, a: near(v**2 * _sine(2 * a) / G), TWO, (1, 89)),
    ("height of a throw", "how high a projectile rises", "top of the parabola",
     lambda v, a: near((v * _sine(a)) ** 2 / (2 * G)), TWO, (1, 89)),
    ("pendulum period in milliseconds", "time of one swing for centimetres", "beat of a hanging weight",
     lambda cm: near(2000 * math.pi * math.sqrt(cm / 100 / G)), BIG),
    ("centripetal acceleration", "pull towards the centre", "what keeps it on the circle", lambda v, r: near(v**2 / r), TWO, TWO),
    ("density of a cube in kilograms per cubic metre", "grams through an edge in millimetres", "how heavy the stuff is",
     lambda m, edge: near(1e6 * m / edge**3), BIG, (10, 99)),
    ("pressure under water in kilopascals", "absolute pressure at depth", "squeeze on a diver",
     lambda d: near(101.325 + G * d), BIG),
    ("lift in sea water", "buoyancy of litres in the ocean", "push of salt water upwards", lambda v: near(1.025 * G * v), BIG),
    ("current in milliamperes", "volts over ohms", "flow through the resistor", lambda u, r: near(1000 * u / r), TWO, BIG),
    ("power in milliwatts", "heat of a resistor", "volts squared over ohms", lambda u, r: near(1000 * u**2 / r), (1, 30), TWO),
    ("energy in watt hours", "watts for minutes", "what the meter counts", lambda p, t: near(p * t / 60), BIG, BIG),
    ("charge in coulombs", "milliamperes for minutes", "electricity that passed", lambda i, t: near(i * t * 0.06), BIG, BIG),
    ("parallel resistance", "two resistors side by side", "ohms of a forked path", lambda a, b: near(a * b / (a + b)), BIG, BIG),
    ("voltage divider in millivolts", "tapped voltage", "share over the second resistor",
     lambda u, a, b: near(1000 * u * b / (a + b)), (1, 20), TWO, TWO),
    ("capacitor reactance", "ohms of microfarads at hertz", "opposition of a condenser",
     lambda c, f: near(1e6 / (2 * math.pi * f * c)), TWO, BIG),
    ("coil reactance", "ohms of millihenries at hertz", "opposition of an inductor",
     lambda h, f: near(2 * math.pi * f * h / 1000), BIG, BIG),
    ("radio wavelength in centimetres", "wave for megahertz", "length of the antenna's wave", lambda f: near(29979.2458 / f), BIG),
    ("photon energy in millielectronvolts", "quantum for nanometres", "energy of one light particle",
     lambda w: near(1239841.98 / w), (100, 1999)),
    ("echo distance in centimetres", "wall from milliseconds of echo", "how far the cliff is",
     lambda t: near(SOUND * t / 20), (1, 9999)),
    ("doppler pitch", "frequency of an approaching source", "siren coming closer",
     lambda f, v: near(f * SOUND / (SOUND - v)), (100, 999), (0, 99)),
    ("image distance", "where the lens focuses", "place of the picture behind the glass",
     lambda f, u: near(f * u / (u - f)), (1, 30), (31, 99)),
    ("lens strength in hundredths of dioptres", "power of a focal length in centimetres", "number on the spectacles",
     lambda f: near(10000 / f), BIG),
    ("angle of refraction", "bent angle for an index in hundredths", "direction inside the glass",
     lambda a, n: near(math.degrees(math.asin(_sine(a) / (n / 100)))), (0, 90), (100, 250)),
    ("fahrenheit", "degrees celsius in the american scale", "temperature for a thermometer in boston",
     lambda c: near(9 * c / 5 + 32), (-100, 999)),
    ("gas pressure in kilopascals", "moles at kelvins in litres", "push of an ideal gas",
     lambda n, t, v: near(n * GAS * t / v), (1, 9), (200, 400), TWO),
    ("pressure after a change of volume", "boyle's law", "squeezed gas at one temperature",
     lambda p, v, w: near(p * v / w), TWO, TWO, TWO),
    ("heat to warm water in joules", "grams by kelvins", "what a kettle has to give", lambda m, k: near(4.186 * m * k), TWO, TWO),
    ("percent left after decay", "undecayed share for time and half life", "what radioactivity has not taken",
     lambda t, h: near(100 * 0.5 ** (t / h)), (0, 99), TWO),
    ("spring energy in millijoules", "newtons per metre by centimetres", "work in a stretched coil",
     lambda k, x: near(k * x**2 / 20), BIG, (1, 40)),
])
# fmt: on
