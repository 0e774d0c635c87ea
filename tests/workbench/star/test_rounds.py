"""The whole loop on a model that guesses: it learns from what it guessed rightly, and from wrong guesses it does not."""

import hashlib
import json

import pytest

from geonb.errors import GeonbError, InputError
from geonb.train.run_folder import RunFolder
from geonb.workbench.star import StarRun, run_star
from geonb.workbench.star.checking import same_answer
from tests.workbench.star import colours

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

SMALL = {
    "problems_per_round": 60,
    "samples": 2,
    "max_steps": 8,
    "seed": 1,
    "device": "cpu",
    "max_generation_tokens": 12,
}


@pytest.fixture(scope="module")
def learnt(guesser, files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("star") / "learnt"
    return folder, run_star(guesser, files[0], folder, eval_data=files[1], control=True, **SMALL)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_model_that_guesses_learns_what_can_be_learnt_and_the_control_does_not(learnt):
    _, run = learnt
    first = run.rounds[0]
    assert run.start.value == pytest.approx(1 / 3, abs=0.15)
    assert first.accuracy.value > 0.7 and run.outcome == "improved" and run.final >= 1
    assert run.rounds[-1].accuracy.value > 0.9
    assert first.control.versus.outcome == "improved"  # the round is better than its control
    assert first.control.accuracy.value < first.accuracy.value - 0.3
    assert first.control.solutions == first.kept


def test_a_guessing_models_right_answers_are_called_luck(learnt):
    _, run = learnt
    high = run.rounds[0].by_chance.interval[1]
    assert ("no more than luck" in run.rounds[0].luck) == (run.rounds[0].correct <= high)
    for later in run.rounds[1:]:
        assert later.correct > later.by_chance.interval[1]  # by then it has learnt to read the question


def test_an_adapter_that_is_zero_is_said_to_be(learnt):
    from safetensors.numpy import load_file

    folder, run = learnt
    first = run.rounds[0]
    for one, place in ((first, "run"), (first.control, "control/run")):
        factors = load_file(folder / "round-1" / place / "adapter" / "adapter_model.safetensors")
        moved = any(tensor.any() for name, tensor in factors.items() if "lora_B" in name)
        assert moved == (one.best_step > 0)
    assert ("so it is zero" in run.to_text()) == (0 in (first.best_step, first.control.best_step))


def test_every_count_of_a_round_is_what_its_files_hold(learnt):
    folder, run = learnt
    first, place = run.rounds[0], folder / "round-1"
    asked = colours.problems(90)
    sampled, kept = rows(place / "samples.jsonl"), rows(place / "kept.jsonl")
    right = [
        row
        for row in sampled
        if row["answer"] and row["answer"].casefold() == asked[row["problem"]]["answer"].casefold()
    ]
    assert (first.asked, first.sampled, first.correct) == (60, 120, len(right))
    assert first.solved == len({row["problem"] for row in right})
    assert first.pass_at["1"].value == pytest.approx(len(right) / 120)
    assert first.pass_at["2"].value == pytest.approx(first.solved / 60)
    assert first.without_answer == sum(row["answer"] is None for row in sampled)
    assert len(kept) == first.kept == len({(row["problem"], row["text"]) for row in right})
    assert first.train + first.validation == first.kept
    for row in kept:
        assert row["messages"][0]["content"] == asked[row["problem"]]["prompt"] and row["source"] == "sampled"
        assert same_answer(row["messages"][-1]["content"].removeprefix("Answer:"), asked[row["problem"]]["answer"])
    held = rows(place / "heldout.jsonl")
    assert first.accuracy.value == sum(row["right"] for row in held) / len(held)
    right_by_form = [sum(row["right"] for row in held if (1000 + row["problem"]) // 3 % 3 == form) for form in range(3)]
    assert [first.by_group[f"form {form}"][0] for form in range(3)] == right_by_form
    assert sum(of for _, of in first.by_group.values()) == len(held) == 60


def test_no_question_stands_on_two_sides_of_a_round(learnt):
    folder, _ = learnt
    train, validation = (
        {row["messages"][0]["content"] for row in rows(folder / "round-1" / f"{name}.jsonl")}
        for name in ("train", "validation")
    )
    held = {row["prompt"] for row in colours.problems(60, first=1000)}
    assert not train & validation and not (train | validation) & held
    assert len(validation) == int(0.2 * (len(train) + len(validation)))


def test_a_round_is_an_ordinary_run_with_a_derived_plan(learnt):
    folder, run = learnt
    made = RunFolder.open(folder / "round-1" / "run")
    assert made.plan().horizon["steps"] == 8 and made.status().state == "done"
    assert (folder / run.rounds[0].adapter / "adapter_model.safetensors").is_file()
    assert (folder / "round-1" / "control" / "run" / "plan.json").is_file()


def test_a_finished_run_is_saved_and_resumed_without_any_work(learnt, guesser, files):
    folder, run = learnt
    assert StarRun.load(folder / "star.json") == run == StarRun.from_json(run.to_json())

    def never(*told):
        raise AssertionError(told)

    again = run_star(guesser, files[0], folder, eval_data=files[1], control=True, resume=True, progress=never, **SMALL)
    assert again == run


class _Killed(Exception):
    pass


STOPS = [
    ("start: held-out problems", 0),
    ("round 1: sampling", 64),
    ("round 1: training", 2),
    ("round 1: held-out problems", 0),
    ("round 1: training the control", 1),
    ("control: held-out problems", 0),
    ("round 2: sampling", 0),
    ("round 2: unsolved ones with a hint", 0),
    ("round 2: training", 1),
    ("round 2: held-out problems", 30),
]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fresh_base", "cumulative"])
def test_a_run_that_was_killed_at_ten_places_ends_with_the_bytes_of_an_undisturbed_one(
    strategy, guesser, files, tmp_path, monkeypatch
):
    settings = {
        **SMALL, "max_steps": 2, "rounds": 2, "strategy": strategy, "control": True, "rationalise": True,
        "all_rounds": True, "eval_data": files[1],
    }  # fmt: skip
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    whole = run_star(guesser, files[0], "out", **settings)
    assert len(whole.rounds) == 2 and whole.rounds[1].accuracy is not None

    monkeypatch.chdir(tmp_path / "killed")
    for count, aim in enumerate(STOPS):

        def kill(stage, done, total, aim=aim):
            if stage == aim[0] and done >= aim[1]:
                raise _Killed

        with pytest.raises(_Killed):
            run_star(guesser, files[0], "out", resume=count > 0, progress=kill, **settings)
        assert not (tmp_path / "killed/out/star.json").exists()
    assert run_star(guesser, files[0], "out", resume=True, **settings) == whole
    assert _digests(tmp_path / "killed/out") == _digests(tmp_path / "whole/out")


def _digests(folder):
    # the status of a run holds its clock and its process
    left_out = {"status.json", ".lock"}
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(_content(path)).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in left_out
    }


def _content(path):
    if path.name != "state.safetensors":
        return path.read_bytes()
    # safetensors writes the two entries of a checkpoint's own header in a random order
    from safetensors import safe_open

    with safe_open(path, framework="np") as stream:
        tensors = {name: stream.get_tensor(name).tobytes() for name in sorted(stream.keys())}
        return repr((sorted(stream.metadata().items()), tensors)).encode()


@pytest.mark.slow
def test_cumulative_rounds_add_up_and_the_last_adapter_on_its_base_answers_as_told(guesser, files, tmp_path):
    settings = {**SMALL, "max_steps": 2, "rounds": 2, "strategy": "cumulative", "all_rounds": True}
    run = run_star(guesser, files[0], tmp_path / "out", eval_data=files[1], **settings)
    second = run.rounds[1]
    assert run.rounds[0].base == str(guesser) and second.base == "round-2/base"
    assert any("round-N/base" in note for note in run.notes)
    # the base of round 2 is the model with round 1's adapter in it, by PEFT's own merge
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(guesser)
    merged = PeftModel.from_pretrained(base, tmp_path / "out" / run.rounds[0].adapter).merge_and_unload().state_dict()
    own = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / second.base).state_dict()
    assert set(own) == set(merged)
    assert all(torch.allclose(own[name], merged[name], atol=1e-6) for name in own)
    # a cumulative round trains on its own solutions only
    assert {row["round"] for row in rows(tmp_path / "out/round-2/kept.jsonl")} == {2}


def test_fresh_rounds_train_on_everything_kept_so_far(guesser, files, tmp_path):
    settings = {**SMALL, "problems_per_round": 40, "max_steps": 1, "rounds": 2, "all_rounds": True}
    run = run_star(guesser, files[0], tmp_path / "out", eval_data=files[1], **settings)
    first, second = (rows(tmp_path / f"out/round-{n}/kept.jsonl") for n in (1, 2))
    assert second[: len(first)] == first and {row["round"] for row in second} == {1, 2}
    assert run.rounds[1].kept == run.rounds[0].kept + run.rounds[1].distinct
    drawn = [{row["problem"] for row in rows(tmp_path / f"out/round-{n}/samples.jsonl")} for n in (1, 2)]
    assert not drawn[0] & drawn[1]


def test_a_model_that_solves_nothing_ends_with_nothing_kept_and_no_training(files, tmp_path_factory, tmp_path):
    from tests.tiny import tiny_model

    run = run_star(tiny_model(tmp_path_factory), files[0], tmp_path / "out", eval_data=files[1], **SMALL)
    assert (run.stop, run.outcome, run.final, run.adapter) == ("nothing kept", "not tested", 0, None)
    assert run.start.value == 0 and run.rounds[0].accuracy is None and run.rounds[0].kept == 0
    assert not (tmp_path / "out/round-1/run").exists()
    assert "nothing kept" in run.to_text() and "<img" in run.to_html()


def test_too_few_solved_problems_end_before_training(guesser, files, tmp_path):
    run = run_star(guesser, files[0], tmp_path / "out", eval_data=files[1], **{**SMALL, "problems_per_round": 8})
    assert run.stop == "too few kept" and "needs 10" in run.because and run.rounds[0].kept > 0


def test_an_adapter_that_solves_everything_leaves_nothing_to_do(learnt, guesser, files, tmp_path):
    folder, run = learnt
    if run.rounds[-1].accuracy.value < 1:
        pytest.fail("the fixture did not learn its colours")
    again = run_star(
        guesser,
        files[0],
        tmp_path / "out",
        eval_data=files[1],
        initial_adapter=folder / run.rounds[-1].adapter,
        **SMALL,
    )
    assert (again.stop, again.rounds, again.start.value) == ("all solved", (), 1.0)


def test_a_hint_is_shown_when_asking_again_and_never_trained_on(guesser, files, tmp_path):
    settings = {**SMALL, "samples": 1, "max_steps": 1, "rounds": 1, "rationalise": True}
    run = run_star(guesser, files[0], tmp_path / "out", eval_data=files[1], **settings)
    kept = rows(tmp_path / "out/round-1/kept.jsonl")
    told = [row for row in kept if row["source"] == "rationalised"]
    assert len(told) == run.rounds[0].rationalised > 0
    solved = {row["problem"] for row in kept if row["source"] == "sampled"}
    assert not solved & {row["problem"] for row in told} and len({row["problem"] for row in told}) == len(told)
    assert not any("The answer is" in message["content"] for row in kept for message in row["messages"])


def test_a_run_that_is_no_better_ends_and_the_start_stands(guesser, files, tmp_path, monkeypatch):
    from geonb.workbench.star import rounds

    # a real training on solutions that all say red, which is no better than guessing
    real = rounds.train_on

    def always_red(model, folder, kept, **settings):
        wrong = [
            row | {"messages": [*row["messages"][:-1], {"role": "assistant", "content": "Answer: red"}]} for row in kept
        ]
        return real(model, folder, wrong, **settings)

    monkeypatch.setattr(rounds, "train_on", always_red)
    run = run_star(guesser, files[0], tmp_path / "out", eval_data=files[1], **SMALL)
    assert run.stop == "no significant improvement" and len(run.rounds) == 1
    assert run.final == 0 and run.adapter is None and run.outcome == "no significant difference"
    assert run.comparison == run.rounds[0].versus_start == run.rounds[0].versus_previous


def test_a_training_that_somebody_stopped_is_told_and_goes_on(guesser, files, tmp_path):
    def stop(stage, done, total):
        if stage == "round 1: training" and done == 2:
            RunFolder(tmp_path / "out/round-1/run").request_stop()

    settings = {**SMALL, "max_steps": 4, "rounds": 1, "eval_data": files[1]}
    with pytest.raises(GeonbError, match="was stopped before its end; --resume goes on"):
        run_star(guesser, files[0], tmp_path / "out", progress=stop, **settings)
    assert run_star(guesser, files[0], tmp_path / "out", resume=True, **settings).rounds[0].steps == 4


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"rounds": 0}, "--rounds was given 0; allowed are 1 to 100"),
        ({"samples": 0}, "--samples was given 0"),
        ({"problems_per_round": 0}, "--problems-per-round was given 0"),
        ({"few_shot": 4}, "--few-shot was given 4; allowed are 0 to 3"),
        ({"temperature": 0}, "--temperature was given 0; allowed are 0.01 to 10"),
        ({"max_generation_tokens": 0}, "--max-generation-tokens was given 0"),
        ({"max_steps": 0}, "--max-steps was given 0"),
        ({"seed": -1}, "--seed was given -1"),
        ({"strategy": "cumulative_adapter"}, "--strategy was given 'cumulative_adapter'; allowed are fresh_base and cumulative"),
        ({"resume": True, "overwrite": True}, "exclude each other"),
        ({"resume": True}, "holds no options.json"),
        ({"few_shot": 2}, "0 problems of .* have a worked solution"),
        ({"initial_adapter": "nowhere"}, "nowhere holds no adapter_config.json"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_before_anything_is_written(given, told, guesser, files, tmp_path):
    with pytest.raises(InputError, match=told):
        run_star(guesser, files[0], tmp_path / "out", **{**SMALL, "eval_data": files[1], **given})
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_left_alone(guesser, files, tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    for more, told in (({}, "exists; allowed is a new or empty folder"), ({"overwrite": True}, "is not a STaR run")):
        with pytest.raises(InputError, match=told):
            run_star(guesser, files[0], tmp_path, eval_data=files[1], **SMALL, **more)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_resuming_with_other_options_names_the_difference(learnt, guesser, files):
    folder, _ = learnt
    with pytest.raises(InputError, match="was made with samples 2, and --resume was given 3"):
        run_star(guesser, files[0], folder, eval_data=files[1], control=True, resume=True, **{**SMALL, "samples": 3})


def test_overwriting_never_removes_what_the_run_starts_from(learnt, guesser, files):
    folder, run = learnt
    adapter = folder / run.rounds[0].adapter
    with pytest.raises(InputError, match="which this run starts from"):
        run_star(guesser, files[0], folder, eval_data=files[1], initial_adapter=adapter, overwrite=True, **SMALL)
    assert adapter.is_dir()
