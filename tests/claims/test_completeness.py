"""The register, the notebooks and the papers belong together: nothing is claimed without a notebook, or judged without a row."""

import re
from collections import Counter
from pathlib import Path

import pytest

from geonb.claims import load_claims, load_reference
from geonb.claims.parameters import check_parameters, judged_ids, parameters_of
from geonb.claims.recorded import load_results

ROOT = Path(__file__).parents[2]
REGISTER = load_claims(ROOT / "papers" / "claims.toml")
ROWS_OF: dict[str, list] = {}
for _claim in REGISTER.claims:
    ROWS_OF.setdefault(_claim.notebook, []).append(_claim)
NOTEBOOKS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("claims", "papers", "hyperparameters", "coordinates")
    for path in (ROOT / "notebooks" / folder).rglob("*.ipynb")
    if ".ipynb_checkpoints" not in path.parts
)
PAPERS = sorted({claim.paper for claim in REGISTER.claims})


@pytest.mark.parametrize("notebook", sorted(ROWS_OF))
def test_the_notebook_of_a_row_is_there_and_judges_what_the_row_says_by_its_parameters(notebook):
    rows = ROWS_OF[notebook]
    judged = judged_ids(ROOT / notebook)
    assert judged is not None and set(judged) == {claim.id.partition("/")[0] for claim in rows}
    for claim in rows:
        for profile in (claim.smoke, claim.full):
            check_parameters(parameters_of(ROOT / notebook), profile, claim.id)


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_a_notebook_that_judges_has_a_row(notebook):
    assert notebook in ROWS_OF, f"write the row of {notebook} in papers/claims.toml, with its rule, before it runs"


@pytest.mark.parametrize("paper", PAPERS)
def test_a_paper_of_a_row_has_its_readme(paper):
    assert (ROOT / paper / "README.md").is_file()


def test_published_figures_and_our_own_are_of_known_claims_of_a_paper_that_has_some():
    found = {path.parent for name in ("reference", "results") for path in (ROOT / "papers").glob(f"*/{name}.json")}
    for folder in sorted(found):
        paper = folder.relative_to(ROOT).as_posix()
        assert paper in PAPERS
        if (folder / "reference.json").is_file():
            load_reference(folder, register=REGISTER)
        results = load_results(folder)
        known = {claim.id for claim in REGISTER.claims if claim.paper == paper}
        assert results is None or {one.claim for one in results.results} <= known, paper


def test_the_readme_counts_the_verdicts_of_the_register():
    counted = Counter(claim.verdict for claim in REGISTER.claims)
    told = (ROOT / "README.md").read_text(encoding="utf-8").split("Of ")[1:]
    sentence = next(one for one in told if re.match(r"\d+ rows ", one)).split(" and say what")[0]
    numbers = [int(one) for one in re.findall(r"\d+", sentence)]
    verdicts = ("holds", "holds by construction", "partly", "fails", "machinery only", "inconclusive")
    assert numbers == [counted.total(), *(counted[one] for one in verdicts)]
