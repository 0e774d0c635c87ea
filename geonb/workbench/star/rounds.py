"""The loop of self-taught reasoning (Zelikman et al. 2022): sample, check, keep, train, and test whether it helped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geonb.train.run_folder import RunFolder
from geonb.workbench.compare_adapters import IMPROVED, NOT_TESTED, PairedTest, paired_test
from geonb.workbench.star.keeping import LEAST, Row, kept_rows, read_rows, together, write_rows, wrong_rows
from geonb.workbench.star.options import CUMULATIVE, FRESH, StarOptions, check_choices, check_numbers
from geonb.workbench.star.prepare import RESULT, notes_of, open_folder, prepare
from geonb.workbench.star.problems import Problems, drawn
from geonb.workbench.star.record import (
    DONE,
    FEW,
    NO_IMPROVEMENT,
    NOTHING,
    SOLVED,
    ZERO,
    StarControl,
    StarRound,
    StarRun,
)
from geonb.workbench.star.sampling import Progress
from geonb.workbench.star.scores import accuracy_of, by_group, pass_measured, right_by_chance
from geonb.workbench.star.solver import Solver
from geonb.workbench.star.training import Trained, merged_base, train_on

# what a round's random numbers are for; with seed and round they seed numpy's generator
_SAMPLE, _HINTED, _TRAIN, _CONTROL, _CHANCE = range(10, 15)


def run_star(
    model: Any,
    data: str | Path = "embedded:chat",
    output: str | Path = "star",
    *,
    eval_data: str | Path | None = None,
    initial_adapter: str | Path | None = None,
    rounds: int = 3,
    problems_per_round: int = 500,
    samples: int = 4,
    temperature: float = 1.0,
    strategy: str = FRESH,
    few_shot: int = 0,
    max_generation_tokens: int | None = None,
    rationalise: bool = False,
    control: bool = False,
    all_rounds: bool = False,
    max_steps: int | None = None,
    seed: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> StarRun:
    """Let a model learn from its own solutions whose answers were checked, in up to `rounds` rounds, into `output`.

    Each round draws `samples` solutions of `problems_per_round` problems, keeps those with the right answer, and trains
    the derived plan on them: a new adapter on the base from everything kept so far ("fresh_base"), or one on the base
    with every earlier adapter merged into it from what this round kept ("cumulative"). The first model is the base with
    `initial_adapter`, where given, and with `few_shot` worked examples before every question; what was trained is asked
    without them, as it was trained. After each round the held-out problems are answered greedily; the rounds end at the
    first one that is not significantly better than the one before (McNemar, exact, 5 %), unless `all_rounds`.

    `rationalise` tries unsolved problems again with the answer as a hint, and keeps at most one solution of each.
    `control` trains beside the first round on as many solutions whose answers are wrong. `max_generation_tokens` None is
    twice the longest worked solution, and `max_steps` None is the derived horizon. With `resume` a killed run goes on to
    the same bytes (on the same device and in the same folder).

    Raises `InputError` before any work for what cannot be used, and where `output` exists.

    >>> run_star("embedded", output="star", rounds=1, problems_per_round=100).stop     # doctest: +SKIP
    'nothing kept'
    """
    check_choices(strategy, resume=resume, overwrite=overwrite)
    check_numbers(
        rounds=rounds,
        problems_per_round=problems_per_round,
        samples=samples,
        temperature=temperature,
        few_shot=few_shot,
        max_generation_tokens=max_generation_tokens,
        max_steps=max_steps,
    )
    checkpoint, adapter, problems, options = prepare(
        model,
        data,
        eval_data,
        initial_adapter,
        seed=seed,
        max_generation_tokens=max_generation_tokens,
        rounds=rounds,
        problems_per_round=problems_per_round,
        samples=samples,
        temperature=float(temperature),
        strategy=strategy,
        few_shot=few_shot,
        rationalise=rationalise,
        control=control,
        all_rounds=all_rounds,
        max_steps=max_steps,
    )
    folder = open_folder(output, options, resume=resume, overwrite=overwrite)
    with RunFolder(folder).held():
        if (folder / RESULT).is_file():
            return StarRun.load(folder / RESULT)
        solver = Solver(checkpoint, adapter, problems.shots, device)
        star = _Star(folder, options, problems, checkpoint, device, progress)
        result = star.carry_out(solver)
        result.save(folder / RESULT)
        return result


@dataclass(slots=True)
class _Star:
    folder: Path
    options: StarOptions
    problems: Problems
    checkpoint: Any
    device: str
    progress: Progress | None
    kept: list[list[Row]] = field(default_factory=list)  # of each round so far

    def carry_out(self, solver: Solver) -> StarRun:
        options = self.options
        start = previous = self._right(solver, self.folder / "start", "start")
        done: list[StarRound] = []
        stop, because = DONE, f"all {options.rounds} rounds were made"
        if all(start):
            stop, because = SOLVED, "the first model answers every held-out problem"
        else:
            for number in range(1, options.rounds + 1):
                made, solver, right, ended = self._round(number, solver, start, previous)
                done.append(made)
                if right is not None:
                    previous = right
                if ended is not None:
                    stop, because = ended
                    break
        solver.close()
        final, judged = self._final(done)
        comparison = judged.versus_start if judged is not None else None
        return StarRun(
            options=options,
            split=f"{len(self.problems.held_out)}, {self.problems.split}",
            pool=len(self.problems.pool),
            start=accuracy_of(start),
            start_by_group=by_group(self._groups(), start),
            rounds=tuple(done),
            stop=stop,
            because=because,
            final=final,
            adapter=next((one.adapter for one in done if one.number == final), None),
            comparison=comparison,
            outcome=comparison.outcome if comparison is not None else NOT_TESTED,
            notes=notes_of(self.problems, options),
        )

    def _final(self, done: list[StarRound]) -> tuple[int, StarRound | None]:
        """The round whose adapter is the result, and the round that is held against the start."""
        trained = [one for one in done if one.versus_start is not None]
        if not trained:
            return 0, None
        if self.options.all_rounds:
            return trained[-1].number, trained[-1]
        better = [one for one in trained if one.versus_previous is not None and one.versus_previous.outcome == IMPROVED]
        return (better[-1].number, better[-1]) if better else (0, trained[-1])

    # -- one round ----------------------------------------------------------------------------------------------------

    def _round(
        self, number: int, solver: Solver, start: list[bool], previous: list[bool]
    ) -> tuple[StarRound, Solver, list[bool] | None, tuple[str, str] | None]:
        options, folder = self.options, self.folder / f"round-{number}"
        folder.mkdir(exist_ok=True)
        sampled = _stage(folder / "samples.jsonl", lambda: self._sample(number, solver))
        hinted = []
        if options.rationalise:
            hinted = _stage(folder / "rationalised.jsonl", lambda: self._rationalise(number, solver, sampled))
        pool = self.problems.pool
        own = kept_rows(sampled, pool, round_number=number, source="sampled")
        told = kept_rows(hinted, pool, round_number=number, source="rationalised", per_problem=1)
        self.kept.append(together(own, told))
        rows = together(*self.kept) if options.strategy == FRESH else self.kept[-1]
        _stage(folder / "kept.jsonl", lambda: rows)
        counted = self._counted(number, sampled, len(self.kept[-1]), len(told), len(rows))
        ended = _reason_not_to_train(counted, rows)
        if ended is not None:
            return counted, solver, None, ended
        model: Any = self.checkpoint
        base = options.model
        solver.close()
        if options.strategy == CUMULATIVE and solver.adapter is not None:
            model = merged_base(solver.model, solver.adapter, folder / "base", device=self._merge_device())
            base = f"{folder.name}/base"
        trained = self._train(model, folder, rows, (number, _TRAIN), f"round {number}: training")
        solver = Solver(model, trained.adapter, (), self.device)
        right = self._right(solver, folder, f"round {number}")
        against_previous = self._test(previous, right)
        control = (
            self._control(folder, model, sampled, self.kept[-1], right) if options.control and number == 1 else None
        )
        made = StarRound.from_dict(
            counted.to_dict()
            | {"train": trained.train, "validation": trained.validation, "steps": trained.steps, "base": base}
            | {"best_step": trained.best_step}
            | {"adapter": trained.adapter.relative_to(self.folder).as_posix(), "verification": trained.verification}
            | {"accuracy": accuracy_of(right).to_dict(), "by_group": by_group(self._groups(), right)}
            | {"versus_previous": against_previous.to_dict(), "versus_start": self._test(start, right).to_dict()}
            | {"control": control.to_dict() if control is not None else None}
        )
        made.save(folder / "round.json")
        return made, solver, right, self._reason_to_end(right, against_previous)

    def _sample(self, number: int, solver: Solver) -> list[Row]:
        options = self.options
        places = drawn(self.problems.pool, options.problems_per_round, round_number=number, seed=options.seed)
        return self._solve(number, solver, places, hint=False)

    def _rationalise(self, number: int, solver: Solver, sampled: list[Row]) -> list[Row]:
        solved = {row["problem"] for row in sampled if row["right"]}
        places = [place for place in dict.fromkeys(row["problem"] for row in sampled) if place not in solved]
        return self._solve(number, solver, places, hint=True)

    def _solve(self, number: int, solver: Solver, places: list[int], *, hint: bool) -> list[Row]:
        options, pool = self.options, self.problems.pool
        return solver.solve(
            [pool[place] for place in places],
            places=places,
            samples=options.samples,
            temperature=options.temperature,
            max_tokens=options.max_generation_tokens,
            seed=(options.seed, number, _HINTED if hint else _SAMPLE),
            hint=hint,
            progress=self.progress,
            stage=f"round {number}: " + ("unsolved ones with a hint" if hint else "sampling"),
        )

    def _counted(self, number: int, sampled: list[Row], distinct: int, rationalised: int, kept: int) -> StarRound:
        n, seed = self.options.samples, self.options.seed
        right = Counter({row["problem"]: 0 for row in sampled})
        right.update(row["problem"] for row in sampled if row["right"])
        counts = list(right.values())
        drawn_answers: dict[int, list[str | None]] = {place: [] for place in right}
        for row in sampled:
            drawn_answers[row["problem"]].append(row["answer"])
        asked = [self.problems.pool[place] for place in right]
        return StarRound(
            number=number,
            asked=len(counts),
            sampled=len(sampled),
            correct=sum(counts),
            by_chance=right_by_chance(
                list(drawn_answers.values()),
                [problem.answer for problem in asked],
                [problem.group for problem in asked],
                seed=(seed, number, _CHANCE),
            ),
            without_answer=sum(row["answer"] is None for row in sampled),
            solved=sum(count > 0 for count in counts),
            pass_at={str(k): pass_measured(counts, n, k, seed=seed) for k in sorted({1, n})},
            distinct=distinct,
            rationalised=rationalised,
            kept=kept,
            train=0,
            validation=0,
        )

    def _train(self, model: Any, folder: Path, rows: list[Row], key: tuple[int, int], stage: str) -> Trained:
        seed = int(np.random.SeedSequence([self.options.seed, *key]).generate_state(1)[0])
        return train_on(
            model,
            folder,
            rows,
            seed=seed,
            max_steps=self.options.max_steps,
            device=self.device,
            progress=self.progress,
            stage=stage,
        )

    def _control(self, folder: Path, model: Any, sampled: list[Row], kept: list[Row], right: list[bool]) -> StarControl:
        seed = (self.options.seed, 1, _CONTROL)
        rows = wrong_rows(sampled, self.problems.pool, kept, round_number=1, seed=seed)
        if rows is None or len({row["problem"] for row in rows}) < LEAST:
            return StarControl(
                solutions=0, best_step=None, accuracy=None, versus=None, verification=None,
                because=f"fewer wrong answers were drawn than the {len(kept)} right ones that were kept",
            )  # fmt: skip
        place = folder / "control"
        place.mkdir(exist_ok=True)
        _stage(place / "kept.jsonl", lambda: rows)
        # the seed of the round's own training: nothing but the solutions differs
        trained = self._train(model, place, rows, (1, _TRAIN), "round 1: training the control")
        solver = Solver(model, trained.adapter, (), self.device)
        other = self._right(solver, place, "control")
        solver.close()
        versus = self._test(other, right)
        return StarControl(
            solutions=len(rows),
            best_step=trained.best_step,
            accuracy=accuracy_of(other),
            versus=versus,
            verification=trained.verification,
            because=f"{len(rows)} solutions whose answers are wrong, the same seed"
            + (f"; {ZERO}" if not trained.best_step else ""),
        )

    # -- measuring ----------------------------------------------------------------------------------------------------

    def _right(self, solver: Solver, folder: Path, name: str) -> list[bool]:
        folder.mkdir(exist_ok=True)
        held = self.problems.held_out

        def answer() -> list[Row]:
            return solver.solve(
                held,
                places=range(len(held)),
                samples=1,
                temperature=0,
                max_tokens=self.options.max_generation_tokens,
                progress=self.progress,
                stage=f"{name}: held-out problems",
            )

        return [bool(row["right"]) for row in _stage(folder / "heldout.jsonl", answer)]

    def _test(self, first: list[bool], second: list[bool]) -> PairedTest:
        values = [[float(one) for one in row] for row in (first, second)]
        return paired_test(*values, higher_is_better=True, unit="of the problems", seed=self.options.seed)

    def _reason_to_end(self, right: list[bool], against_previous: PairedTest) -> tuple[str, str] | None:
        if all(right):
            return SOLVED, "every held-out problem is answered"
        if against_previous.outcome != IMPROVED and not self.options.all_rounds:
            return NO_IMPROVEMENT, against_previous.because
        return None

    def _groups(self) -> list[str | None]:
        return [problem.group for problem in self.problems.held_out]

    def _merge_device(self) -> str:
        return "cpu" if self.device == "auto" else self.device


def _reason_not_to_train(counted: StarRound, rows: list[Row]) -> tuple[str, str] | None:
    if not counted.distinct:
        return NOTHING, f"none of {counted.sampled} solutions has the right answer"
    if counted.correct == counted.sampled:
        return SOLVED, f"all {counted.sampled} solutions have the right answer: there is nothing left to learn from"
    solved = len({row["problem"] for row in rows})
    if solved < LEAST:
        return (
            FEW,
            f"{solved} problems have a kept solution; a training needs {LEAST} (a fifth of them chooses the adapter)",
        )
    return None


def _stage(path: Path, make: Callable[[], list[Row]]) -> list[Row]:
    """What `path` holds, made first where it is not there: a killed run repeats no stage that was finished."""
    if not path.is_file():
        write_rows(path, make())
    return read_rows(path)
