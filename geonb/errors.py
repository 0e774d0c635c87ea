"""Every error that geonb raises on purpose: one root, four kinds."""

from __future__ import annotations


class GeonbError(Exception):
    """Root of geonb's errors; the message says what was given, what is allowed and what to do."""

    exit_code = 1


class InputError(GeonbError, ValueError):
    """What the person gave cannot be used: a path, a file, a field, a pair of options. Exit code 2."""

    exit_code = 2


class DerivationError(GeonbError, ValueError):
    """A hyperparameter cannot be derived from this model and data; the message names the missing quantity."""

    exit_code = 2


class BackendError(GeonbError, RuntimeError):
    """A numerical library is absent, or returned a result that fails its own check."""


class ClaimError(GeonbError, AssertionError):
    """A published claim did not hold by the rule that was written before the run."""
