"""The one registry: a backend's name, the module that holds it and the library that it needs."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from typing import Any

from geonb.backends.protocol import Backend
from geonb.errors import BackendError, InputError

# name -> (module of the adapter, class, module of the library)
REGISTRY: dict[str, tuple[str, str, str]] = {
    "numpy": ("geonb.backends.numpy_backend", "NumpyBackend", "numpy"),
    "torch": ("geonb.backends.torch_backend", "TorchBackend", "torch"),
    "jax": ("geonb.backends.jax_backend", "JaxBackend", "jax"),
    "mlx": ("geonb.backends.mlx_backend", "MlxBackend", "mlx.core"),
}


def available() -> dict[str, str | None]:
    """Each backend's name with None where it can be used, else the reason why not."""
    return {name: _reason(library) for name, (_, _, library) in REGISTRY.items()}


def _reason(library: str) -> str | None:
    root = library.partition(".")[0]
    if root in sys.modules or importlib.util.find_spec(root) is not None:
        return None
    return f"{root} is not installed; install geonb[{root}]"


def get_backend(what: Any) -> Backend:
    """The backend of that name, or of the library that the array `what` belongs to; lists and scalars go to NumPy."""
    if isinstance(what, Backend):
        return what
    name = what if isinstance(what, str) else _library_of(what)
    if name not in REGISTRY:
        raise InputError(f"the backend {name!r} is not known; allowed are {', '.join(REGISTRY)}.")
    return _load(name)


def _library_of(array: Any) -> str:
    for kind in type(array).__mro__:
        root = kind.__module__.partition(".")[0]
        if root in {"jax", "jaxlib"}:
            return "jax"
        if root in {"torch", "mlx"}:
            return root
    return "numpy"


@functools.cache
def _load(name: str) -> Backend:
    module, kind, library = REGISTRY[name]
    reason = _reason(library)
    if reason is not None:
        raise BackendError(f"the backend {name} cannot be used: {reason}.")
    return getattr(importlib.import_module(module), kind)()
