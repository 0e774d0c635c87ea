"""The comparison of optimisers: its rule on made-up losses, and real runs that go on after a kill."""

import pytest

from geonb.coordinates import compare_optimisers as module
from geonb.coordinates.compare_optimisers import ROWS, OptimisersCompared, Row, compare_optimisers
from geonb.coordinates.configuration import preset
from geonb.coordinates.recipe import Recipe
from geonb.errors import InputError

RATES = (1e-3, 1e-2, 1e-1)
RECIPE = Recipe(configuration=preset("tiny"), steps=4, rows=6, length=32, evaluate_every=4)


def written(folder, *, ball=0.0, none=0.3, best=1e-2):
    """A folder whose runs are all made: AdamW at 2.0 at its best rate, the ball's step and no cores so much above it."""
    folder.mkdir()
    (folder / "recipe.json").write_text(RECIPE.to_json())
    rows = [Row(arm="adamw", rate=rate, seed=seed, loss=2.0 + (rate != best)) for rate in RATES for seed in (100, 101)]
    for seed in range(3):
        wobble = 0.01 * seed
        rows += [
            Row(arm="adamw", rate=best, seed=seed, loss=2.0 + wobble),
            Row(arm="frank-wolfe", rate=1e-3, seed=seed, loss=2.0 + ball + 2 * wobble),
            Row(arm="none", rate=best, seed=seed, loss=2.0 + none + wobble),
        ]
    (folder / ROWS).write_text("".join(row.to_json() + "\n" for row in rows))
    return folder


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ({"ball": -0.1}, "as good as AdamW"),
        ({"ball": 0.4}, "worse than AdamW"),
        ({"ball": 0.045}, "undecided"),
        ({"ball": -0.1, "none": 0.0}, "the cores are worth nothing here"),
        ({"ball": -0.1, "best": 1e-1}, "at the edge of the grid"),
    ],
)
def test_the_verdict_follows_the_rule(tmp_path, losses, words):
    found = compare_optimisers(RECIPE, written(tmp_path / "rows", **losses), seeds=3, grid=RATES)
    assert words in found.verdict and found.verdict in found.to_text()
    # mean and Student's interval of the differences ball + (0, 0.01, 0.02), by hand: t(2) = 4.3027
    middle, half = losses["ball"] + 0.01, 4.30265 * 0.01 / 3**0.5
    assert found.difference.value == pytest.approx(middle, abs=1e-9)
    assert found.difference.interval == pytest.approx((middle - half, middle + half), abs=1e-6)
    assert OptimisersCompared.from_json(found.to_json()) == found


def test_runs_are_made_once_and_a_killed_comparison_goes_on(tmp_path, monkeypatch):
    whole, made = module.train, []

    def counted(recipe, folder):
        if len(made) == 5:
            made.append("killed")
            raise KeyboardInterrupt
        made.append((recipe.controller, recipe.coordinate_rate, recipe.seed))
        return whole(recipe, folder)

    monkeypatch.setattr(module, "train", counted)
    with pytest.raises(KeyboardInterrupt):
        compare_optimisers(RECIPE, tmp_path / "rows", seeds=2, grid=RATES)
    with (tmp_path / "rows" / ROWS).open("ab") as stream:
        stream.write(b'{"arm": "adamw", "ra')  # a line that was cut short
    found = compare_optimisers(RECIPE, tmp_path / "rows", seeds=2, grid=RATES)
    made.remove("killed")
    assert len(made) == len(set(made)) == 12 and set(found.losses) == {"adamw", "frank-wolfe", "none"}
    assert compare_optimisers(RECIPE, tmp_path / "rows", seeds=2, grid=RATES) == found and len(made) == 12


def test_what_cannot_be_compared_is_told(tmp_path):
    with pytest.raises(InputError, match="allowed are 2 seeds and 3 rates"):
        compare_optimisers(RECIPE, tmp_path / "new", seeds=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no comparison"):
        compare_optimisers(RECIPE, tmp_path / "full")
    other = Recipe(configuration=preset("tiny"), steps=5, rows=6, length=32, evaluate_every=4)
    with pytest.raises(InputError, match="begun with another recipe: steps 4"):
        compare_optimisers(other, written(tmp_path / "rows"), grid=RATES)
