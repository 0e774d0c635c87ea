"""`geonb coordinates` as the tests call it."""

import pytest
from typer.testing import CliRunner

from geonb.cli.app import app, main


def run(*arguments, text=None):
    """The result of the command; what it raises beside its exit code is raised here."""
    result = CliRunner().invoke(app, ["coordinates", *map(str, arguments)], input=text)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refused(capsys, *arguments):
    """The one sentence with which the command refuses bad input."""
    with pytest.raises(SystemExit) as ended:
        main(["coordinates", *map(str, arguments)])
    assert ended.value.code == 2
    told = capsys.readouterr().err.strip()
    assert "\n" not in told
    return told
