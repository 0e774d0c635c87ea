"""A model that solves problems: a base, perhaps an adapter, perhaps worked examples before every question."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geonb.workbench.star.checking import same_answer, solution_of
from geonb.workbench.star.problems import Problem, prompt_ids
from geonb.workbench.star.sampling import Progress, Request, generate


@dataclass(slots=True)
class Solver:
    """Loaded when it is first asked, so that stages that lie on the disk cost nothing."""

    model: Any  # what names the base: a source, a folder, or an open checkpoint
    adapter: Path | None
    shots: tuple[Problem, ...]
    device: str
    _bench: Any = field(default=None, repr=False)

    def close(self) -> None:
        """Let go of the model: training loads one of its own."""
        self._bench = None

    def solve(
        self,
        problems: Sequence[Problem],
        *,
        places: Sequence[int],
        samples: int,
        temperature: float,
        max_tokens: int,
        seed: tuple[int, ...] = (),
        hint: bool = False,
        progress: Progress | None = None,
        stage: str,
    ) -> list[dict[str, Any]]:
        """`samples` checked solutions of each problem as rows of JSON; `places` are the problems' own numbers."""
        bench = self._open()
        tokenizer = bench.runtime.tokenizer
        requests = []
        for problem, place in zip(problems, places, strict=True):
            ids = tuple(prompt_ids(problem, tokenizer, shots=self.shots, hint=hint))
            requests += [Request(ids, (place, sample)) for sample in range(samples)]
        drafts = generate(
            bench,
            "adapter" if self.adapter is not None else None,
            requests,
            temperature=temperature,
            max_tokens=max_tokens,
            seed=seed,
            progress=progress,
            stage=stage,
        )
        rows = []
        for number, draft in enumerate(drafts):
            problem, place = problems[number // samples], places[number // samples]
            text = tokenizer.decode(draft.tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            solution = solution_of(text, ended=draft.ended)
            rows.append(
                {
                    "problem": int(place),
                    "id": problem.id,
                    "sample": number % samples,
                    "text": solution.text,
                    "answer": solution.answer,
                    "right": solution.answer is not None and same_answer(solution.answer, problem.answer),
                }
            )
        return rows

    def _open(self) -> Any:
        if self._bench is None:
            from geonb.workbench.bench import Bench

            given = {"adapter": self.adapter} if self.adapter is not None else {}
            self._bench = Bench.open(self.model, given, device=self.device)
        return self._bench


def adapter_digest(folder: Path) -> str:
    """sha256 over an adapter's weights and config."""
    from geonb.adapters.peft_files import CONFIG, WEIGHTS

    found = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        found.update((folder / name).read_bytes())
    return found.hexdigest()
