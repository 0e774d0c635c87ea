"""One rounding from float64: the nearest value of the narrow format, and the even one of two that are equally near."""

from fractions import Fraction

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from geonb.workbench.export.rounding import round_once

finite = st.floats(-6e4, 6e4, allow_subnormal=False, width=64)


@given(finite)
def test_half_precision_is_what_numpy_rounds_directly(value):
    assert round_once(torch.tensor([value], dtype=torch.float64), torch.float16).item() == float(np.float16(value))


@given(finite.filter(lambda x: abs(x) > 1e-30))
def test_bfloat16_is_the_nearest_in_rational_arithmetic(value):
    given_back = round_once(torch.tensor([value], dtype=torch.float64), torch.bfloat16)
    bits = given_back.view(torch.int16)
    around = [(bits + step).to(torch.int16).view(torch.bfloat16).item() for step in (-1, 0, 1)]
    evens = [one for one, step in zip(around, (-1, 0, 1), strict=True) if (int(bits) + step) % 2 == 0]
    best = min(abs(Fraction(value) - Fraction(one)) for one in around)
    ties = [one for one in around if abs(Fraction(value) - Fraction(one)) == best]
    assert given_back.item() == (ties[0] if len(ties) == 1 else next(one for one in ties if one in evens))


def test_a_value_that_rounding_twice_gets_wrong():
    # a hair above the tie between 1 and 1 + 2^-7: float32 loses the hair, and the tie then goes to the even 1
    value = torch.tensor([1 + 2**-8 + 2**-30], dtype=torch.float64)
    assert value.to(torch.bfloat16).item() == 1.0
    assert round_once(value, torch.bfloat16).item() == 1 + 2**-7


def test_what_is_not_finite_stays_so():
    values = torch.tensor([torch.inf, -torch.inf, torch.nan, 1e300], dtype=torch.float64)
    assert [str(one) for one in round_once(values, torch.float16).tolist()] == ["inf", "-inf", "nan", "inf"]
