"""Pictures are well-formed, self-contained and escaped; the random twin is that of a real random matrix."""

import xml.etree.ElementTree as tree

import numpy as np
import pytest

from geonb.geometry.spectrum import Spectrum
from geonb.models import MatrixGeometry, MatrixRef
from geonb.train.events import Condition, EvalEvent, LayerState, StepEvent
from geonb.widgets.spectrum_picture import random_twin, spectra_picture, tail_map
from geonb.widgets.svg import Axis, heat_colour
from geonb.widgets.trace_picture import trace_picture


def geometry(name="model.layers.0.<q>", values=(3.0, 2.0, 0.5)):
    ref = MatrixRef(
        name=name, module=name, role="q", layer=0, expert=None, shape=(3, 3), dtype="float32", targetable=True,
        because="", parts=(name,),
    )  # fmt: skip
    return MatrixGeometry(ref=ref, spectrum=Spectrum.of(values))


def events(n=40):
    layer = LayerState(name="<w>", eta_step=0.1, binding="weyl", norm=0.1, budget_used=0.2, over_sigma_k=0.3)
    for step in range(1, n + 1):
        yield StepEvent(
            step=step, loss=3.0 - step / n, tokens=9, eta_ceiling=2.0, eta_sps=1.0, eta_weyl=0.1, eta_step=0.1,
            binding="weyl", gap=1.0, layers=(layer,) if step % 10 == 0 else (),
        )  # fmt: skip
    condition = Condition(name="no drift", status="met", value=0.0, threshold=0.0, because="<inside>")
    yield EvalEvent(step=n, loss=2.0, retention_loss=3.5, conditions=(condition,))


@pytest.mark.parametrize(
    "picture",
    [
        trace_picture(list(events())),
        trace_picture([]),
        spectra_picture([geometry()]),
        spectra_picture([geometry(values=(0.0, 0.0))]),
        tail_map([geometry()]),
    ],
)
def test_pictures_are_xml_and_fetch_nothing(picture):
    tree.fromstring(picture)
    assert "<script" not in picture and "href" not in picture and "<w>" not in picture and "<q>" not in picture


def test_the_trace_names_what_binds_and_lights_the_certificate():
    picture = trace_picture(list(events()))
    assert "from step 1: weyl binds" in picture and "met: &lt;inside&gt;" in picture
    assert "20% of R" in picture and "0.30 sigma_k" in picture


def test_the_random_twin_is_the_spectrum_of_a_random_matrix():
    draws = [np.random.default_rng(seed).standard_normal((120, 300)) for seed in range(20)]
    exact = np.mean([np.linalg.svd(draw, compute_uv=False) for draw in draws], axis=0)
    norm = float(np.mean([np.linalg.norm(draw) for draw in draws]))
    np.testing.assert_allclose(random_twin((120, 300), norm), exact, rtol=0.02)


def test_axes_have_few_round_ticks():
    assert Axis(0, 200, 0, 100).ticks() == [0, 50, 100, 150, 200]
    assert Axis(0.1, 10, 0, 100, log=True).at(1.0) == pytest.approx(50)
    assert heat_colour(-1) == heat_colour(0) and heat_colour(2) == heat_colour(1)
