"""A coordinate model that was trained for a few steps, for tests that only need one."""

from pathlib import Path

from geonb.coordinates.configuration import preset
from geonb.coordinates.recipe import Recipe
from geonb.coordinates.training import train


def small_coordinate_run(folder: Path) -> Path:
    """The folder of a finished run of `tiny`."""
    made = Recipe(configuration=preset("tiny"), steps=12, rows=6, length=64, evaluate_every=6, base_rate=3e-3)
    list(train(made, folder))
    return folder
