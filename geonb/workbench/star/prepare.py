"""Everything that can be refused is refused here, before a model is loaded or a folder is made."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from geonb.assets import resolve_data
from geonb.data.seeds import data_digest, derive_seed
from geonb.errors import InputError
from geonb.plan.inputs import open_checkpoint
from geonb.train.run_folder import RunFolder, refuse_existing
from geonb.workbench.star.options import CUMULATIVE, FLOOR, StarOptions, check_same
from geonb.workbench.star.problems import Problems, gather_problems, prompt_ids
from geonb.workbench.star.scores import half_width
from geonb.workbench.star.solver import adapter_digest

OPTIONS, RESULT = "options.json", "star.json"
_TOKENS, _LEAST_TOKENS = 256, 32
# held-out problems of which a change of five points is found more often than not, when the models differ on a fifth of
# them: 2.8^2 * 0.2 / 0.05^2 is about 630 for 80 %, 1.96^2 * 0.2 / 0.05^2 about 300 for half
_ENOUGH = 300


def prepare(
    model: Any,
    data: str | Path,
    eval_data: str | Path | None,
    initial_adapter: str | Path | None,
    *,
    seed: int | None,
    max_generation_tokens: int | None,
    **choices: Any,
) -> tuple[Any, Path | None, Problems, StarOptions]:
    """The open checkpoint, the initial adapter's folder, the problems, and the options with every default filled in.

    Raises `InputError` for what cannot be used, also for problems that leave no room in the model's context.
    """
    checkpoint = open_checkpoint(model)
    if not checkpoint.is_causal:
        raise InputError(
            f"{checkpoint.source} is {checkpoint.architecture}, which writes no text: give a causal model."
        )
    adapter = None
    if initial_adapter is not None:
        from geonb.workbench.bench import adapter_folder

        adapter = adapter_folder(initial_adapter)
    if adapter is not None and choices["strategy"] == CUMULATIVE:
        from geonb.workbench.export.changes import refuse_unmergeable

        refuse_unmergeable(adapter)
    digest = data_digest(resolve_data(data))
    source = "given by --seed" if seed is not None else "sha256 of the model's and the data's bytes"
    seed = derive_seed(checkpoint.digest, digest) if seed is None else seed
    if seed < 0:
        raise InputError(f"--seed was given {seed}; allowed are whole numbers from 0 up: choose another.")
    problems = gather_problems(data, eval_data, few_shot=choices["few_shot"], seed=seed)
    tokenizer = checkpoint.load_tokenizer()
    limit, why = _limit(problems, tokenizer, max_generation_tokens)
    _check_lengths(problems, tokenizer, checkpoint.context_length)
    options = StarOptions(
        model=str(checkpoint.source),
        model_digest=checkpoint.digest,
        data=str(data),
        data_digest=digest,
        eval_data=str(eval_data) if eval_data is not None else None,
        eval_digest=data_digest(resolve_data(eval_data)) if eval_data is not None else None,
        initial_adapter=str(initial_adapter) if initial_adapter is not None else None,
        initial_digest=adapter_digest(adapter) if adapter is not None else None,
        max_generation_tokens=limit,
        max_generation_source=why,
        seed=int(seed),
        seed_source=source,
        **choices,
    )
    return checkpoint, adapter, problems, options


def _limit(problems: Problems, tokenizer: Any, given: int | None) -> tuple[int, str]:
    if given is not None:
        return given, "given by --max-generation-tokens"
    worked = [one.worked for one in (*problems.pool, *problems.shots) if one.worked]
    if not worked:
        return _TOKENS, "no problem has a worked solution to measure"
    longest = max(len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) for text in worked)
    return max(
        _LEAST_TOKENS, 2 * longest
    ), f"twice the longest worked solution ({longest} tokens), at least {_LEAST_TOKENS}"


def _check_lengths(problems: Problems, tokenizer: Any, context: int | None) -> None:
    if context is None:
        return
    for problem in (*problems.pool, *problems.held_out):
        length = len(prompt_ids(problem, tokenizer, shots=problems.shots, hint=True))
        if length >= context:
            raise InputError(
                f"the problem {problem.id!r} has a prompt of {length} tokens and the model's context is {context}; at most "
                f"{context - 1} leave room for a solution: use fewer worked examples, or leave it out."
            )


def notes_of(problems: Problems, options: StarOptions) -> tuple[str, ...]:
    """What should be known about the certainty of a run like this, before its numbers are read."""
    asked, held = min(options.problems_per_round, len(problems.pool)), len(problems.held_out)
    notes = list(problems.notes)
    if asked < FLOOR:
        notes.append(
            f"{asked} problems are asked a round and the documented floor is {FLOOR}: the share that a round solves is "
            f"known to +-{half_width(asked):.3f}, and fewer solutions are kept to learn from"
        )
    if held < _ENOUGH:
        notes.append(
            f"{held} problems are held out, so an accuracy is known to +-{half_width(held):.3f}; a gain of five points is "
            f"found more often than not from about {_ENOUGH} on"
        )
    notes.append(
        "each round is tested against the one before at 5 %, and the rounds end at the first that is not significantly "
        "better: such a fixed sequence names a wrong winner in at most 5 % of runs, however many rounds were allowed"
        if not options.all_rounds
        else "all rounds are run, so the tests from round to round describe; the one that counts, planned beforehand, is the "
        "last round against the start, at 5 %"
    )
    if options.strategy == CUMULATIVE:
        notes.append(
            "cumulative: from the second round on (the first, with an initial adapter) an adapter belongs to round-N/base, "
            "which is the model with every earlier adapter in its weights"
        )
    return tuple(notes)


def open_folder(output: str | Path, options: StarOptions, *, resume: bool, overwrite: bool) -> Path:
    """The run's folder: new, replaced with `overwrite`, or with `resume` the one that was made with the same options."""
    folder = Path(output)
    made = folder / OPTIONS
    if resume:
        if not made.is_file():
            raise InputError(f"{folder} holds no {OPTIONS}, so there is no STaR run to go on with: leave --resume out.")
        check_same(options, StarOptions.load(made), str(folder))
        return folder
    if overwrite and folder.is_dir() and any(folder.iterdir()):
        if not made.is_file():
            raise InputError(f"{folder} is not a STaR run, so --overwrite leaves it alone: choose another with -o.")
        StarOptions.load(made)
        if RunFolder(folder).is_held():
            raise InputError(f"{folder} is in use by another process: wait for it, or choose another with -o.")
        _refuse_own_inputs(folder, options)
        shutil.rmtree(folder)
    refuse_existing(folder)
    folder.mkdir(parents=True, exist_ok=True)
    options.save(made)
    return folder


def _refuse_own_inputs(folder: Path, options: StarOptions) -> None:
    place = folder.resolve()
    for source in (options.initial_adapter, options.data, options.eval_data, options.model):
        if source is not None and Path(source).exists() and Path(source).resolve().is_relative_to(place):
            raise InputError(f"--overwrite would remove {source}, which this run starts from: choose another with -o.")
