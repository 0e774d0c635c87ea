"""Self-taught reasoning in rounds: sample solutions, check their answers, keep the right ones, train on them."""

from __future__ import annotations

from geonb import _lazy

_NAMES = {
    "StarControl": "record",
    "StarRound": "record",
    "StarRun": "record",
    "pass_at": "scores",
    "run_star": "rounds",
    "solution_of": "checking",
    "same_answer": "checking",
}

__getattr__, __dir__, __all__ = _lazy.attach(__name__, _NAMES)
