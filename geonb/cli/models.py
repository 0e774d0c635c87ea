"""`geonb model list|add|delete|search`: names for the models on this machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from geonb.cli import options
from geonb.cli.output import answer, prints
from geonb.errors import InputError

if TYPE_CHECKING:
    import geonb.models.registry

NAME = typer.Argument(..., metavar="NAME", help="1 to 64 letters, digits, '.', '_' and '-'.")


@prints
def list_models(
    cached: bool = typer.Option(
        True, "--cached/--no-cached", help="Show the models of the Hugging Face cache as well."
    ),
    json: bool = options.AS_JSON,
) -> geonb.models.registry.KnownModels:
    """The models that have a name and those in the Hugging Face cache: architecture, parameters, size, folder.

    Everything is read from configs and headers; nothing is loaded or fetched.
    """
    from geonb.models import registry

    return answer(registry.list_models(cached=cached), as_json=json)


@prints
def add(
    name: str = NAME,
    folder: str = typer.Argument(..., metavar="FOLDER", help="A local folder in Hugging Face form."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Move a name that is taken to this folder."),
    json: bool = options.AS_JSON,
) -> geonb.models.registry.KnownModels:
    """Give the model in FOLDER a name that commands take as MODEL. The folder stays where it is."""
    from geonb.models import registry

    known = registry.add(name, folder, overwrite=overwrite)
    return answer(registry.KnownModels(models=(known,), searched=None, notes=()), as_json=json)


@prints
def delete(
    name: str = NAME,
    files: bool = typer.Option(False, "--files", help="Delete the folder with everything in it as well, after asking."),
    yes: bool = typer.Option(False, "--yes", help="Do not ask."),
    json: bool = options.AS_JSON,
) -> geonb.models.registry.Deleted:
    """Forget the name NAME. The folder stays, unless --files is given.

    --files never touches a folder that holds your home or working folder, belongs to the Hugging Face cache, or is
    shared with another name; and links in it are removed, not followed.
    """
    from geonb.models import registry

    if files and not yes:
        folder = registry.deletable(name)
        if json or not sys.stdin.isatty():
            raise InputError(
                f"--files deletes {folder} for good and nobody can be asked here: add --yes if you mean it."
            )
        typer.confirm(f"Delete {str(folder)!r} with everything in it?", abort=True, err=True)
    return answer(registry.delete(name, files=files), as_json=json)


@prints
def search(
    text: str = typer.Argument(..., metavar="TEXT", help="A part of the name, case aside."),
    hub: bool = typer.Option(False, "--hub", help="Ask the Hugging Face hub as well (needs the network)."),
    json: bool = options.AS_JSON,
) -> geonb.models.registry.KnownModels:
    """Find models by name, among the registered and cached ones; with --hub on the hub, where they are not fetched yet."""
    from geonb.models import registry

    return answer(registry.search(text, hub=hub), as_json=json)
