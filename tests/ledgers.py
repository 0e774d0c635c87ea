"""A small ledger of hand-made rows, and the same as files that a dashboard reads."""

from __future__ import annotations

from geonb.claims.checks import EVIDENCE, HOLDS, REFUTED, Check
from geonb.claims.ledger import NOT_RUN, Ledger, LedgerRow
from geonb.claims.reference import PublishedFigure
from geonb.geometry.measurement import Measurement

EVIL = "<script>window.pwned=1</script><img src=x onerror=window.pwned=1>"


def measured(value, low, high, n=24, unit="CKA"):
    return Measurement(value=value, interval=(low, high), n=n, null=0.3, unit=unit, operator="test")


def figure(claim, check, published, *, interval=None, unit="CKA", note=""):
    return PublishedFigure(
        claim=claim, check=check, published=published, interval=interval, n=15, unit=unit, on="SmolLM-135M", note=note
    )


def row(claim="w4-alignment", **changes):
    given = {
        "paper": "results-ledger",
        "claim": claim,
        "statement": f"What {claim} says.",
        "published": "validated",
        "figures": (),
        "registered": "fails",
        "decision": NOT_RUN,
        "because": "",
        "passed": None,
        "problem": "",
        "checks": (),
        "profile": "",
        "model": "",
        "seconds": None,
        "finished": "",
        "is_current": True,
        "link": f"notebooks/claims/{claim}.ipynb",
    }
    return LedgerRow(**{**given, **changes})


def small_ledger() -> Ledger:
    """Six claims of two papers: held, refuted, by construction, undecided, failed and never run."""
    ran = {"profile": "smoke", "model": "embedded", "seconds": 12.0, "finished": "2026-03-01T00:00:00Z", "passed": True}
    held_out = Check.of("held-out CKA", measured(0.686, 0.61, 0.74), ">=", 0.9, decides=HOLDS)
    worse = Check.of("loss of the fit over raw", measured(0.27, 0.2, 0.3), ">", 0, decides=REFUTED)
    over = Check.of("||BA|| / sigma_k", measured(240.0, 22.0, 2700.0, unit="x"), ">", 1, decides=HOLDS)
    wide = Check.of("accuracy", measured(0.5, 0.1, 0.9, n=9, unit=""), ">=", 0.6, decides=HOLDS)
    rows = (
        row(
            "w4-alignment", decision="fails", because="held-out CKA 0.686 is not >= 0.9.", checks=(held_out, worse),
            figures=(figure("w4-alignment", "held-out CKA", 0.99, interval=(0.98, 1.0)),), **ran,
        ),
        row(
            "w7-scale-bound", decision="holds", registered="holds", because="every condition is met.", checks=(over,),
            figures=(figure("w7-scale-bound", "||BA|| / sigma_k", 0.5, unit="x"),), **ran,
        ),
        row("f4-stable-rank", decision="holds by construction", registered="holds by construction", **ran),
        row(
            "p1-primes", paper="invariant-semantic-structure", decision="inconclusive", checks=(wide,),
            because="the interval holds the threshold.", **ran,
        ),
        row(
            "p5-highway", paper="semantic-highway", decision="no verdict", problem="the third cell raised.",
            checks=(Check.of("probes", 30, ">=", 20, decides=EVIDENCE),), **{**ran, "passed": False},
        ),
        row("p5-depth", paper="semantic-highway", figures=(figure("p5-depth", "", 15.8, unit="TwoNN"),)),
    )  # fmt: skip
    return Ledger(source="papers", rows=rows)


def write_papers(root):
    """A repository in small: a register of three claims, one hostile, their results, published figures and notebooks."""
    import json

    from geonb.claims.environment import Environment
    from geonb.claims.recorded import ClaimRecord, PaperResults
    from geonb.claims.reference import Reference

    folder = root / "papers" / "highway"
    folder.mkdir(parents=True)
    (root / "notebooks").mkdir()
    statements = {"flat-weights": "Weight space is flat.", "deep-valley": "The profile falls.", "hostile": EVIL}
    verdicts = {"flat-weights": "holds", "deep-valley": "fails", "hostile": "fails"}
    register, records = [], []
    for name, statement in statements.items():
        notebook = f"notebooks/{name}.ipynb"
        register.append(
            f"[[claim]]\nid = {json.dumps(name)}\nstatement = {json.dumps(statement)}\npaper = 'papers/highway'\n"
            f"published = 'validated'\nverdict = {json.dumps(verdicts[name])}\nnotebook = {json.dumps(notebook)}\n"
            f"rule = {json.dumps(f'holds above one half. {statement}')}\ncontrols = [{json.dumps(statement)}]\n"
            "smoke = { profile = 'smoke' }\nfull = { profile = 'full' }\n"
        )
        checks = (Check.of(statement, measured(0.7, 0.6, 0.8), ">", 0.5, decides=HOLDS),)
        records.append(
            ClaimRecord(
                claim=name, profile="smoke", model=statement, decision=verdicts[name], registered=verdicts[name],
                because=statement, passed=True, problem="", checks=checks, notebook=notebook, parameters={}, seconds=3.0,
                finished="2026-03-01T00:00:00Z", environment=Environment.here(), notebook_hash="", rows_hash="",
                rule_hash="", model_hash="",
            )
        )  # fmt: skip
        cells = [
            {"cell_type": "markdown", "metadata": {}, "source": f"# {name}\n\n{EVIL}\n\n[link](javascript:pwned=1)"},
            {
                "cell_type": "code", "metadata": {}, "source": f"print({EVIL!r})", "execution_count": 1,
                "outputs": [
                    {"output_type": "stream", "name": "stdout", "text": [EVIL]},
                    {"output_type": "display_data", "metadata": {}, "data": {"text/html": f"<p>drawn</p>{EVIL}"}},
                    {"output_type": "error", "ename": "E", "evalue": EVIL, "traceback": [f"\x1b[31m{EVIL}"]},
                ],
            },
        ]  # fmt: skip
        (root / notebook).write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    (root / "papers" / "claims.toml").write_text("\n".join(register))
    PaperResults(paper="highway", results=tuple(records)).save(folder / "results.json")
    published = (figure("flat-weights", "Weight space is flat.", 0.9, note=EVIL),)
    Reference(paper="highway", source=EVIL, figures=published).save(folder / "reference.json")
    return root / "papers"
