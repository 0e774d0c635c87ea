"""Lazy public names (PEP 562): a package names what it offers without importing it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def attach(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `(__getattr__, __dir__, __all__)` for `package`, where `names` maps a public name to its submodule.

    >>> __getattr__, __dir__, __all__ = attach("geonb.errors_example", {"InputError": "errors"})
    >>> __all__
    ['InputError']
    """
    exported = sorted(names)

    def load(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{names[name]}"), name)

    def listing() -> list[str]:
        return exported

    return load, listing, exported
