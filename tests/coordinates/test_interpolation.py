"""Ways between styles stay on the sphere, begin and end exactly, and move evenly."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geonb.coordinates.interpolation import phase_path, slerp
from geonb.errors import InputError


@given(st.integers(0, 500), st.floats(0, 1))
def test_the_way_on_the_sphere_has_one_length_and_an_even_pace(seed, share):
    rng = np.random.default_rng(seed)
    a, b = (torch.tensor(v / np.linalg.norm(v) * 8) for v in rng.normal(size=(2, 64)))
    point = slerp(a, b, share)
    assert float(point.norm()) == pytest.approx(8, rel=1e-9)
    whole = math.acos(float(a @ b) / 64)
    assert math.acos(min(1.0, float(a @ point) / 64)) == pytest.approx(share * whole, abs=1e-6)
    assert torch.equal(slerp(a, b, 0), a) and torch.equal(slerp(a, b, 1), b)


@given(st.lists(st.floats(-30, 30), min_size=3, max_size=3), st.lists(st.floats(-30, 30), min_size=3, max_size=3))
def test_phases_take_the_shorter_arc_and_end_where_they_should(first, second):
    a, b = torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64)
    end = phase_path(a, b, 1.0)
    np.testing.assert_allclose(np.exp(1j * end.numpy()), np.exp(1j * b.numpy()), atol=1e-9)
    assert float((end - a).abs().max()) <= math.pi + 1e-9


def test_there_is_no_way_between_opposites_or_between_spheres():
    a = torch.ones(4)
    with pytest.raises(InputError, match="opposite"):
        slerp(a, -a, 0.5)
    with pytest.raises(InputError, match="different lengths"):
        slerp(a, 2 * a, 0.5)
    torch.testing.assert_close(slerp(a, a.clone(), 0.3), a)
