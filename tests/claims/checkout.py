"""A small checkout of its own: a register, papers, and notebooks that really run."""

import json


def code(source, *tags):
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {"tags": list(tags)},
        "outputs": [],
        "source": source,
    }


def notebook(*sources, parameters='profile = "smoke"  # n=3, and a = b\nvalue = 0.7'):
    """A notebook as a dict: its parameters cell, then one code cell for each source."""
    cells = [code(parameters, "parameters"), *map(code, sources)]
    cells = [{**cell, "id": f"cell-{place}"} for place, cell in enumerate(cells)]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def verifying(*names, value="value"):
    """The source of a last cell that judges each name by `value` >= 0.5."""
    lines = ["from geonb import claims"]
    for name in names:
        check = f"claims.Check.of('the r', {value}, '>=', 0.5, decides='holds')"
        lines.append(f"claims.verify({name!r}, [{check}], profile=profile)")
    return "\n".join(lines)


def row(name, file=None, **changes):
    return {
        "id": name,
        "statement": f"What {name} says.",
        "paper": "papers/tail",
        "published": "validated",
        "verdict": "holds",
        "notebook": f"notebooks/claims/{file or name}.ipynb",
        "rule": "Holds where r is at least 0.5.",
        "controls": ["a random matrix"],
        "smoke": {"profile": "smoke"},
        "full": {"profile": "full"},
        **changes,
    }


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    # a JSON text is a TOML text
    return json.dumps(value) if isinstance(value, str) else str(value).lower()


def register(root, *rows):
    """papers/claims.toml below `root`, with the folders of the papers; returns the papers' folder."""
    papers = root / "papers"
    for one in rows:
        (root / one["paper"]).mkdir(parents=True, exist_ok=True)
    lines = [line for one in rows for line in ("[[claim]]", *(f"{key} = {toml(item)}" for key, item in one.items()))]
    (papers / "claims.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return papers


def add_notebook(root, name, data):
    """`data` as notebooks/claims/NAME.ipynb below `root`."""
    path = root / "notebooks" / "claims" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def checkout(root, **notebooks):
    """A checkout with one claim for each notebook (`_` in a name for `-`); returns the papers' folder."""
    names = [name.replace("_", "-") for name in notebooks]
    for name, data in zip(names, notebooks.values(), strict=True):
        add_notebook(root, name, data)
    return register(root, *(row(name) for name in names))
