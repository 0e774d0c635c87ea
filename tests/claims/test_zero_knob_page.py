"""The marked blocks of a page: written from the rows and from nothing else, and what stands in the project is current."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonb.claims.zero_knob_page import BLOCKS, condition, fill, fill_pages
from geonb.errors import InputError
from geonb.workbench.benchmark.arm import DEFAULT, OPEN, STRICT, THREE, Arm, adamw
from geonb.workbench.benchmark.design import BROKEN, DECIDING, LONG, SHORT, Cell
from geonb.workbench.benchmark.forms import growing_radius
from geonb.workbench.benchmark.queue import read_rows
from tests.workbench.benchmark.small import row_of

TOP = Path(__file__).parents[2]
ROWS = TOP / "papers/zero-knob/results.jsonl"


def block(name, body=""):
    return f"<!-- zero-knob: {name} -->\n{body}<!-- zero-knob: end -->"


def body(name, rows):
    """The lines of the one block of a page."""
    return fill(block(name), rows).splitlines()[1:-1]


def cell_rows(cell, ours=2.0, theirs=4.0, seeds=(0, 1, 2)):
    made = []
    for seed in seeds:
        more = (0.0, 0.01, -0.01)[seed]
        made += [
            row_of(cell.job(arm, seed), ours + more / 2 + extra, retention=3.2)
            for arm, extra in ((THREE, 0.0), (STRICT, 0.5), (OPEN, 0.2))
        ]
        made.append(row_of(cell.job(adamw(3e-3), seed), theirs + more, retention=3.8))
    made += [row_of(cell.job(adamw(rate)), theirs + 1) for rate in (1e-3, 1e-2)]
    return {row.key: row for row in made}


HOME, AWAY = Cell("embedded", "kjv"), Cell("llama-1m", "kjv", 60)


@pytest.mark.parametrize("page", ["README.md", "papers/zero-knob/README.md", "papers/zero-knob/ablations.md"])
def test_the_figures_of_the_projects_pages_are_those_of_its_rows(page):
    text = (TOP / page).read_text()
    assert fill(text, read_rows(ROWS)) == text


def test_a_table_has_a_row_for_each_deciding_cell_with_its_losses_and_what_the_seeds_say():
    rows = cell_rows(HOME) | cell_rows(AWAY, 3.0, 2.0, seeds=(0,))
    head, _, first, second = body("cells", rows)
    assert head.startswith("| cell | best AdamW | loss | its loss | ratio |")
    # paired differences: -2, -2.005, -1.995; t(2) at 97.5 % is 4.303, times .005 / sqrt(3)
    assert first.startswith(
        "| embedded/kjv/T200/b16 | rate=0.003 | 2.000 | 4.000 | 0.500 | -2.000 ± 0.012 win | 0.25 |"
    )
    assert second.startswith("| llama-1m/kjv/T60/b16 | rate=0.003 | 3.000 | 2.000 | 1.500 | +1.000 |")
    # a head and a rule, and no row under them
    assert len(body("others", rows)) == 2


def test_what_decides_nothing_stands_in_a_table_of_its_own():
    other = Cell("elsewhere", "kjv")
    assert other not in DECIDING
    rows = cell_rows(HOME) | cell_rows(other)
    assert [line.split(" | ")[0] for line in body("others", rows)[2:]] == ["| elsewhere/kjv/T200/b16"]
    assert len(body("cells", rows)) == 3


def test_the_headline_counts_cells_and_seeds_and_what_lacks():
    said = " ".join(body("headline", cell_rows(HOME) | cell_rows(AWAY, 3.0, 2.0, seeds=(0,))))
    # sqrt(0.5 * 1.5)
    assert (
        "geometric mean over 2 cells (2 models, T = 60 to 200, batch 16) is 0.866 of that rival's loss, the worst 1.500."
        in said
    )
    assert "Of the 1 cells with three paired seeds it wins 1, ties 0 and loses 0." in said
    assert "at most half of what the rival does in 2 of 2 cells" in said
    assert "are known to lack." in said
    assert body("headline", {}) == ["There is no cell to compare yet."]


def test_the_radii_are_compared_over_the_seeds_where_every_budget_has_them_all():
    rows = cell_rows(HOME)
    assert len(body("radius over seeds", rows)) == 3  # a head, a rule and one cell
    line = body("radius over seeds", rows)[2]
    # ln(2.5/2.0), and no width but of the seeds' own differences: 2.505/2.005, 2.495/1.995
    assert line.startswith("| embedded/kjv/T200/b16 | +0.223 ± 0.001 | 1.00 | +0.095 ± ")
    lacking = {key: row for key, row in rows.items() if row.job.arm != OPEN or row.job.seed < 2}
    assert len(body("radius over seeds", lacking)) == 2


def test_the_radius_that_grows_is_shown_for_short_and_long_runs_and_cell_by_cell():
    cell = LONG[0]
    made = []
    for seed, noise in enumerate((0.0, 0.01, -0.01)):
        made.append(row_of(cell.job(DEFAULT, seed), 2.0))
        made.append(row_of(cell.job(growing_radius(cell.horizon), seed), 2.0 * math.exp(0.1 + noise), retention=4.0))
    said = body("growing", {row.key: row for row in made})
    assert said[2] == f"| T = 60 | 0 of {3 * len(SHORT)} |  |  |"
    # t(2) at 97.5 % is 4.303, times .01 / sqrt(3); the rises are 1 and 0.5
    assert said[3] == f"| T = 800 and 2000 | 3 of {3 * len(LONG)} | +0.100 ± 0.025 | +0.693 ± 0.000 |"
    assert said[4 + len(SHORT)] == f"| {cell.job(DEFAULT).cell} | 3 of 3 | +0.100 ± 0.025 | +0.693 ± 0.000 |"


def test_each_budget_is_said_with_its_mean_and_what_scaling_afterwards_would_have_cost():
    rows = cell_rows(HOME) | cell_rows(AWAY)
    said = body("budgets", rows)
    # (2 + 0.5) / 4 in both cells; a rise of 0.2 beside 0.8
    assert said[0] == (
        "`--budget strict` has 0.625 of that rival's loss in the mean and at most half of its damage in 2 of 2 cells."
    )
    assert said[1].startswith("`--budget balanced`, the default, has 0.500 ") and said[2].startswith("`--budget open` ")
    assert len(said) == 3  # no adapter was scaled
    job = HOME.job(THREE)
    rows[job.key] = row_of(job, 2.0, retention=3.4, frontier=[(0.5, 5.0, 3.2)])
    assert body("budgets", rows)[3] == (
        "A balanced adapter that is scaled after training until it forgets as little as a strict one has 2.00 of that one's "
        "loss in the median (2.00 to 2.00)."
    )
    assert body("budgets", {}) == ["There is no cell to compare yet."]


def test_without_a_setting_that_was_run_everywhere_the_headline_leaves_the_regret_out():
    # of the two main cells each has an AdamW of its own
    made = [row_of(HOME.job(arm), 2.0) for arm in (THREE, adamw(1e-3), adamw(3e-3), adamw(1e-2))]
    other = Cell("embedded", "chat")
    made += [row_of(other.job(arm), 2.0) for arm in (THREE, *(adamw(rate, "32") for rate in (1e-3, 3e-3, 1e-2)))]
    made = [
        row_of(row.job, 1.5, over_budget=0.9) if row.job.arm == adamw(3e-3, row.job.arm.rank) else row for row in made
    ]
    rows = {row.key: row for row in [*made, row_of(HOME.job(OPEN), 3.0), row_of(other.job(OPEN), 3.0)]}
    said = " ".join(body("headline", rows))
    assert "over 2 cells" in said and "Used for everything" not in said and "is 0.900." in said


def test_under_a_condition_the_arm_stands_beside_the_adamw_that_was_best_without_it():
    plain = Cell("llama-1m", "chat")
    broken = next(cell for cell in BROKEN if cell.domain == "chat" and cell.planned == 800)
    made = [row_of(plain.job(adamw(1e-2, "32")), 1.0), row_of(plain.job(adamw(3e-3)), 2.0)]
    made += [row_of(broken.job(DEFAULT), 3.0, retention=4.0), row_of(broken.job(adamw(1e-2, "32")), 2.0, retention=5.0)]
    rows = {row.key: row for row in made}
    assert body("broken", rows)[2:] == [
        "| T planned 4 times too long | chat | 3.000 (4.00) | 2.000 (5.00) | **loses** |"
    ]


def test_every_condition_has_words_of_its_own():
    said = [(condition(cell.job(OPEN)), cell.domain.partition("+")[0]) for cell in BROKEN]
    assert len(set(said)) == len(said) and all(words for words, _ in said)


@given(st.text(alphabet=st.characters(exclude_characters="<"), max_size=60), st.sampled_from(sorted(BLOCKS)))
def test_the_rest_of_a_page_stays_and_filling_twice_is_filling_once(text, name):
    page = text + block(name, "old\n") + text
    filled = fill(page, {})
    assert (
        filled.startswith(text + "<!--")
        and filled.endswith("-->" + text)
        and "old" not in filled.removeprefix(text).removesuffix(text)
    )
    assert fill(filled, {}) == filled


@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        ("no block", "the page has 0 marks of zero-knob; allowed are pairs"),
        ("<!-- zero-knob: cells -->\n", "the page has 1 marks"),
        (block("cells") + "<!-- zero-knob: end -->", "the page has 3 marks"),
        (block("kings"), "the page has a block 'kings'; allowed are headline, cells,"),
    ],
)
def test_a_page_with_a_wrong_mark_is_one_sentence_and_no_page_is_written(page, sentence, tmp_path):
    good, bad = tmp_path / "good.md", tmp_path / "bad.md"
    good.write_text(block("cells"))
    bad.write_text(page)
    with pytest.raises(InputError, match=sentence):
        fill_pages([good, bad], {})
    assert good.read_text() == block("cells") and bad.read_text() == page
    with pytest.raises(InputError, match=r"none\.md was given; allowed is a Markdown page that can be read"):
        fill_pages([tmp_path / "none.md"], {})
    assert fill_pages([good], {}) == [good] and fill_pages([good], {}) == []


def test_the_headline_of_the_rivals_counts_every_comparison_of_three_seeds():
    cell = Cell("m", "chat", 60)
    made = [row_of(cell.job(adamw(3e-3)), 3.0)]
    for seed, noise in enumerate((0.01, -0.02, 0.01)):
        made.append(row_of(cell.job(DEFAULT, seed), 2.0 + noise, state_bytes=1))
        made.append(row_of(cell.job(Arm(method="full", rate=1e-3), seed), 1.9, state_bytes=4))
        made.append(row_of(cell.job(Arm(method="mass"), seed), 4.0))
    said = BLOCKS["rivals headline"]({row.key: row for row in made})
    assert "2 other ways of fine-tuning were run, 1 with a searched rate: of 2 comparisons" in said
    assert "it wins 1, ties 0 and loses 1." in said
    assert "The strongest is full fine-tuning: in the mean it has 1.05 of that loss, with 0.25 of its state" in said
    assert BLOCKS["rivals headline"]({}) == "No other way of fine-tuning was run yet."
