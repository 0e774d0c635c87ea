"""A verdict out of a stranger's verification.json stays text in the report, also where it names a class."""

import json
import shutil

from geonb.widgets import write_report
from tests.tiny import tiny_run


def test_a_verdict_that_is_markup_does_not_leave_its_attribute(tmp_path, tmp_path_factory):
    run = shutil.copytree(tiny_run(tmp_path_factory), tmp_path / "run")
    path = run / "verification.json"
    verification = json.loads(path.read_text())
    verification["verdict"] = '"><img src=x onerror=window.pwned=1>'
    path.write_text(json.dumps(verification))
    page = write_report(run).read_text(encoding="utf-8")
    assert "<img src=x" not in page and "&lt;img src=x" in page
