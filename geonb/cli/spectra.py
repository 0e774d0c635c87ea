"""`geonb spectra`: the singular values of every matrix, and the map of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from geonb.cli import live, options
from geonb.cli.output import answer, prints
from geonb.cli.progress import GeometryBar
from geonb.errors import InputError

if TYPE_CHECKING:
    import geonb.models.spectra


@prints
def spectra(
    model: str = options.MODEL_ARGUMENT,
    picture: str | None = typer.Option(None, "--picture", help="Write the map and one spectrum to this SVG file."),
    json: bool = options.AS_JSON,
) -> geonb.models.spectra.ModelSpectra:
    """Measure every matrix of MODEL: sigma_max, sigma_k, k, tail. In a notebook the map fills in as it goes.

    A matrix that was measured before comes from the cache, so the second look is fast.
    """
    from geonb.models.checkpoint import Checkpoint
    from geonb.models.spectra import model_spectra

    if picture is not None and not Path(picture).absolute().parent.is_dir():
        raise InputError(f"--picture was given {picture}, whose folder does not exist: make it first, or give another.")
    checkpoint = Checkpoint.open(model)
    record = live.explored(checkpoint)
    if record is None:
        record = model_spectra(checkpoint, progress=GeometryBar(enabled=not json))
    if picture is not None:
        from geonb.records import atomic_write
        from geonb.widgets.explorer_picture import explorer_picture
        from geonb.widgets.spectrum_explorer import SpectrumExplorer

        atomic_write(picture, explorer_picture(SpectrumExplorer(record)))
    return answer(record, as_json=json)
