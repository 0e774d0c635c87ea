"""What `geonb coordinates generate` shows: text as it is made, drawn tokens in colour or between marks, figures at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from geonb.cli.output import note
from geonb.errors import InputError
from geonb.records import plain

PRECISIONS = ("float32", "int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options, checked: what can be wrong with them is told before a model is read."""

    decoding: str
    share: float
    threshold: float | None
    mass: float
    tokens: int
    seed: int
    style: str | None
    coordinate: str | None
    refine: int
    weights: str
    phases: str
    reuse: float
    calibrate_on: Path | None
    marks: bool
    quiet: bool

    def __post_init__(self) -> None:
        from geonb.coordinates.decoding import DECODINGS

        if self.decoding not in DECODINGS:
            raise InputError(f"--decoding was given {plain(self.decoding)!r}; allowed are {', '.join(DECODINGS)}.")
        for name in ("weights", "phases"):
            if getattr(self, name) not in PRECISIONS:
                raise InputError(
                    f"--{name} was given {plain(getattr(self, name))!r}; allowed are {' and '.join(PRECISIONS)}."
                )
        if not 0 < self.share < 1:
            raise InputError(f"--share was given {self.share}; allowed is a share above 0 and below 1.")
        if not 0 < self.mass <= 1 or self.tokens < 1:
            raise InputError(
                f"--mass {self.mass} and --tokens {self.tokens} were given; allowed are a mass in (0, 1] and 1 token or more."
            )
        if not 0 <= self.reuse <= 1:
            raise InputError(f"--reuse was given {self.reuse}; allowed is a share of the budget from 0 (never) to 1.")
        if self.reuse and (self.style is not None or self.coordinate is not None or self.refine):
            raise InputError(
                "--reuse was given with one coordinate for all; its cores are reused anyway: leave it out."
            )
        if self.threshold is not None and self.decoding in ("nucleus", "greedy"):
            raise InputError(f"--threshold was given, but {self.decoding} does not switch: leave one of them out.")
        if self.calibrate_on is not None and (self.threshold is not None or self.decoding in ("nucleus", "greedy")):
            raise InputError("--calibrate-on was given where nothing is calibrated: leave out --threshold, or switch.")


class Speaker:
    """A model that goes on from prompts or talks, as asked."""

    def __init__(self, asked: Asked, folder: Path, model: Any, tokenizer: Any) -> None:
        self.asked, self.folder, self.model, self.tokenizer = asked, folder, model, tokenizer
        self.colour = sys.stdout.isatty() and not asked.quiet and "NO_COLOR" not in os.environ
        self._reduce()
        self.threshold = self._threshold()
        self.policy = None
        if asked.reuse:
            from geonb.coordinates.reuse import Reuse

            self.policy = Reuse.of(model, asked.reuse)
        self.style = self._style()

    def go_on(self, prompt: str) -> Any:
        """The continuation of a prompt, shown as it is made."""
        from geonb.coordinates.analyze import encoded
        from geonb.coordinates.continuation import Continuation
        from geonb.coordinates.decoding import generate
        from geonb.coordinates.streaming import Streaming
        from geonb.coordinates.tokenizer import END

        ids = encoded(self.tokenizer, prompt)
        theta = self._refined(ids) if self.asked.refine else self.style
        made, stream = [], Streaming(self.tokenizer)
        show = not self.asked.quiet
        with self._remembering():
            tokens = generate(
                self.model, ids, stop=frozenset({self.tokenizer.token_to_id(END)}), reader=self._reader(theta), **self._options()
            )  # fmt: skip
            for place, one in enumerate(tokens):
                if show and not place:  # what is wrong with the prompt is told before it is repeated
                    self._write(prompt, False, dim=True)
                made.append(one)
                piece = stream.add(one.token)
                if show:
                    self._write(piece, one.sampled)
        found = Continuation.of(prompt, made, self.tokenizer, decoding=self.asked.decoding, threshold=self.threshold)
        if show:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._told(found.statistics())
        return found

    def talk(self, first: str | None) -> Any:
        """Answer line by line until an empty one; the last answer's continuation."""
        from geonb.coordinates.continuation import Continuation
        from geonb.coordinates.conversation import Conversation

        said = Conversation(self.tokenizer, lambda: self._reader(self.style), **self._options())
        begun, last = 0, ""
        with self._remembering():
            for line in self._lines(first):
                begun, last = len(said.made), line
                reply = said.reply(line)
                try:
                    for place, (piece, drawn) in enumerate(reply):
                        if not place:
                            sys.stdout.write("model:")
                        self._write(piece, drawn)
                except KeyboardInterrupt:
                    reply.close()
                except InputError as error:
                    note(str(error))
                    continue
                sys.stdout.write("\n")
                sys.stdout.flush()
        if not said.made:
            raise InputError("nothing was said; give a line, or --prompt.")
        if said.forgotten:
            note(f"the context was full: the oldest {said.forgotten} turns were forgotten")
        options = {"decoding": self.asked.decoding, "threshold": self.threshold}
        self._told(Continuation.of("", said.made, self.tokenizer, **options).statistics())
        return Continuation.of(last, said.made[begun:], self.tokenizer, **options)

    def _lines(self, first: str | None) -> Iterator[str]:
        if first is not None:
            sys.stdout.write(f"you: {plain(first)}\n")
            yield first
        while True:
            try:
                # piped lines are repeated, so that what is printed reads as a conversation
                line = input("you: ").strip()
            except (EOFError, KeyboardInterrupt):
                line = ""
            if not sys.stdin.isatty():
                sys.stdout.write(f"{plain(line)}\n")
            elif not line:
                sys.stdout.write("\n")
            if not line:
                return
            yield line

    def _options(self) -> dict[str, Any]:
        asked = self.asked
        return {
            "max_tokens": asked.tokens,
            "decoding": asked.decoding,
            "threshold": self.threshold,
            "mass": asked.mass,
            "seed": asked.seed,
        }

    def _reader(self, theta: Any) -> Any:
        from geonb.coordinates.reader import Reader

        return Reader(self.model, theta, phases=self.asked.phases, reuse=self.policy)

    def _reduce(self) -> None:
        from geonb.coordinates import reduced

        # phases first: what 8 bits do to them is told of the weights as they are
        if self.asked.phases == "int8":
            self._told(reduced.reduced_phases(self.model, self.tokenizer).summary())
        if self.asked.weights == "int8":
            self._told(reduced.reduced_weights(self.model, self.tokenizer).summary())

    def _threshold(self) -> float:
        asked = self.asked
        if asked.threshold is not None or asked.decoding in ("nucleus", "greedy"):
            return asked.threshold or 0.0
        from geonb.coordinates.calibration import calibration_of

        texts = None
        if asked.calibrate_on is not None:
            from geonb.coordinates.text_clusters import read_texts

            texts = read_texts(asked.calibrate_on)
        found = calibration_of(self.folder, self.model, self.tokenizer, share=asked.share, texts=texts)
        return found.threshold(asked.decoding)

    def _style(self) -> Any:
        from geonb.coordinates.analyze import style_of
        from geonb.coordinates.exported import load_coordinates

        if self.asked.style is not None:
            return style_of(self.model, self.tokenizer, self.asked.style)
        if self.asked.coordinate is None:
            return None
        known = load_coordinates(self.folder)
        if self.asked.coordinate not in known:
            raise InputError(
                f"--coordinate was given {plain(self.asked.coordinate)!r}; allowed are {plain(', '.join(sorted(known)))}."
            )
        return known[self.asked.coordinate]

    def _refined(self, ids: list[int]) -> Any:
        import torch

        from geonb.coordinates.refinement import refine

        found = refine(self.model, torch.tensor([ids]), steps=self.asked.refine)
        self._told(
            f"refined by {found.accepted} of {self.asked.refine} steps: {found.objective[0]:.4f} -> {found.objective[-1]:.4f} "
            "nats a token of the prompt, with the penalty"
        )
        return found.theta[0, 0]

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        from geonb.coordinates.reuse import remembered_cores

        # with a coordinate a token, all layers' cores at once are faster than remembering each matrix's
        fixed = self.style is not None or self.asked.refine
        with remembered_cores(self.model) if fixed else nullcontext():
            yield
        if self.policy is not None:
            self._told(
                f"cores reused for {self.policy.share:.0%} of tokens and layers; weights within "
                f"{self.policy.largest:.3g} of the budget, certified"
            )

    def _write(self, text: str, drawn: bool, *, dim: bool = False) -> None:
        text = plain(text, keep="\n\t")
        if drawn and text and self.asked.marks:
            text = f"[{text}]"
        if self.colour and (drawn or dim) and text:
            text = typer.style(text, fg=typer.colors.YELLOW if drawn else None, dim=dim or None)
        sys.stdout.write(text)
        sys.stdout.flush()

    def _told(self, line: str) -> None:
        if not self.asked.quiet:
            note(line)
