"""Numerical libraries behind one small protocol and one registry; none is imported before it is asked for."""

from __future__ import annotations

from geonb import _lazy

_NAMES = {"Backend": "protocol", "REGISTRY": "registry", "available": "registry", "get_backend": "registry"}

__getattr__, __dir__, __all__ = _lazy.attach(__name__, _NAMES)
