"""One prompt or a file of them: the texts of both models, rates that can be counted by hand, and a file that resumes."""

import json
import shutil

import pytest

from geonb.errors import InputError
from geonb.geometry.statistics import wilson
from geonb.workbench.bench import Bench
from geonb.workbench.generation import encode_prompt, generate
from geonb.workbench.inference import Inference, Suite, SuiteLine, infer, infer_suite
from tests.tiny import tiny_model, tiny_run

# transformers warns about itself whenever PEFT loads an adapter
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
PROMPTS = ["3 apples and", "Hi", "7 pears make", "and and and", "x"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return tiny_run(tmp_path_factory)


@pytest.fixture(scope="module")
def options(model, adapter):
    return {"adapter": adapter, "max_tokens": 6, "chat": False, "device": "cpu"}


@pytest.fixture(scope="module")
def texts(model, adapter):
    """What each model writes, from a bench of its own."""
    bench = Bench.open(model, {"adapter": adapter}, device="cpu")
    prompts = [encode_prompt(bench.runtime.tokenizer, one, chat=False) for one in PROMPTS]
    return [[generate(bench, prompt, label=label, max_tokens=6) for label in (None, "adapter")] for prompt in prompts]


@pytest.fixture(scope="module")
def source(tmp_path_factory, texts):
    """Prompts with answers that only the base, only the adapter, both and neither give, and one without."""

    def word(position, label):
        # the whole text is an answer that stands in it
        return texts[position][label].text.strip()

    answers = [word(0, 0), word(1, 1), word(2, 1), "no model writes this", None]
    rows = [
        {"prompt": one, **({"answer": answer} if answer else {})} for one, answer in zip(PROMPTS, answers, strict=True)
    ]
    path = tmp_path_factory.mktemp("suite") / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(path):
    return [SuiteLine.from_json(row) for row in path.read_text().splitlines()]


def repeats(tokens):
    grams = [tokens[i : i + 4] for i in range(len(tokens) - 3)]
    return 1 - len(set(grams)) / len(grams) if grams else 0


def timeless(found):
    """The lines without what a clock gave."""
    told = [one.to_dict() for one in found]
    for one in told:
        for written in one["continuations"]:
            del written["seconds"], written["tokens_per_second"]
    return told


def test_one_load_gives_what_each_model_gives_alone(model, options, texts):
    heard = []
    found = infer(model, PROMPTS[0], **options, on_text=lambda label, piece: heard.append((label, piece)))
    assert [one.tokens for one in found.continuations] == [one.tokens for one in texts[0]]
    assert [one.label for one in found.continuations] == ["base", "adapter"] and found.same is False
    for label, one in zip(("base", "adapter"), found.continuations, strict=True):
        assert "".join(piece for name, piece in heard if name == label) == one.text
    assert found.drift is None and not found.chat and Inference.from_json(found.to_json()) == found
    assert "base and adapter differ" in found.to_text()


def test_without_an_adapter_there_is_nothing_to_compare(model):
    found = infer(model, "Hi", max_tokens=3, device="cpu")
    assert found.same is None and len(found.continuations) == 1 and found.chat and found.adapter is None
    assert "differ" not in found.to_text()


def test_a_scan_follows_the_adapters_own_text(model, options):
    found = infer(model, PROMPTS[0], scan=True, **options)
    assert [one.id for one in found.drift.prompts[0].tokens] == list(found.continuations[1].tokens)
    assert "mean KL" in found.to_text() and "mean KL" in found.to_html()


def test_hostile_text_cannot_steer_a_terminal_or_a_page(model, options):
    found = infer(model, "<script>\x1b[2J", **options)
    assert "\x1b" not in found.to_text() and "<script>" not in found.to_html() and "\x1b" not in found.to_html()


def test_a_suite_counts_what_can_be_counted_by_hand(model, source, options, texts):
    found = infer_suite(model, source, **options)
    assert found.n_prompts == 5 and found.output is None and len(found.lines) == 5
    for label, name in enumerate(("base", "adapter")):
        ended = sum(pair[label].tokens[-1] == 1 for pair in texts)
        measured = found.measured[f"{name}: ended by itself"]
        assert (measured.value, measured.interval, measured.n) == (ended / 5, wilson(ended, 5), 5)
        loops = sum(repeats(pair[label].tokens) > 1 / 3 for pair in texts)
        assert found.measured[f"{name}: loops"].value == loops / 5
    differ = sum(pair[0].tokens != pair[1].tokens for pair in texts)
    assert found.measured["adapter differs from base"].value == differ / 5
    right = [
        (line.answer in line.continuations[0].text, line.answer in line.continuations[1].text)
        for line in found.lines[:4]
    ]
    assert found.measured["base: answer found"].value == sum(one for one, _ in right) / 4 >= 1 / 4
    assert found.measured["adapter: answer found"].value == sum(one for _, one in right) / 4 >= 2 / 4
    assert found.measured["adapter: answer found"].null == found.measured["base: answer found"].value
    assert (found.only_base, found.only_adapter) == (right.count((True, False)), right.count((False, True))) == (1, 2)
    assert found.p_value == 1.0  # 1 against 2: two sides of a coin thrown three times
    assert Suite.from_json(found.to_json()) == found and "p = 1" in found.to_text()


def test_a_suite_that_was_killed_in_mid_line_goes_on_to_the_same_file(model, source, options, tmp_path):
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    full = infer_suite(model, source, output=whole, **options)
    assert full.lines == () and full.n_resumed == 0 and len(lines(whole)) == 5
    content = whole.read_bytes().splitlines(keepends=True)
    cut.write_bytes(b"".join(content[:2]) + content[2][:-20])
    seen = []
    rest = infer_suite(model, source, output=cut, resume=True, progress=lambda *step: seen.append(step[:2]), **options)
    assert rest.n_resumed == 2 and seen == [(2, 5), (3, 5), (4, 5), (5, 5)]
    assert timeless(lines(cut)) == timeless(lines(whole)) and rest.measured == full.measured
    again = infer_suite(model, source, output=cut, resume=True, **options)
    assert again.n_resumed == 5 and again.measured == full.measured


def test_a_resume_with_nothing_there_starts_anew(model, source, options, tmp_path):
    assert infer_suite(model, source, output=tmp_path / "new.jsonl", resume=True, **options).n_resumed == 0


def test_a_scan_of_a_suite_has_an_interval_over_prompts(model, source, options, tmp_path):
    found = infer_suite(model, source, output=tmp_path / "o.jsonl", scan=True, **options)
    kept = lines(tmp_path / "o.jsonl")
    expected = sum(line.drift.kl for line in kept) / 5
    measured = found.drift.measured["mean KL"]
    assert measured.value == pytest.approx(expected) and measured.n == 5 and measured.null is not None
    assert measured.interval[0] <= measured.value <= measured.interval[1]


@pytest.fixture(scope="module")
def done(model, source, options, tmp_path_factory):
    path = tmp_path_factory.mktemp("done") / "out.jsonl"
    infer_suite(model, source, output=path, **options)
    return path


def test_an_output_is_never_written_over_unasked(model, source, options, done, tmp_path):
    before = done.read_bytes()
    with pytest.raises(InputError, match=r"exists; allowed is a new file: give --resume to go on, or --overwrite"):
        infer_suite(model, source, output=done, **options)
    with pytest.raises(InputError, match="--resume and --overwrite exclude each other"):
        infer_suite(model, source, output=done, resume=True, overwrite=True, **options)
    with pytest.raises(InputError, match="--resume goes on with an output file, and none was given"):
        infer_suite(model, source, resume=True, **options)
    with pytest.raises(InputError, match="is a folder or lies in none"):
        infer_suite(model, source, output=tmp_path / "none" / "x.jsonl", **options)
    assert done.read_bytes() == before
    with pytest.raises(InputError, match="does not fit embedded"):
        infer_suite("embedded", source, output=done, overwrite=True, **options)
    assert done.read_bytes() == before
    copy = shutil.copy(done, tmp_path / "copy.jsonl")
    assert infer_suite(model, source, output=copy, overwrite=True, **options).n_resumed == 0
    assert len(lines(tmp_path / "copy.jsonl")) == 5


CHANGES = {
    "another limit": lambda given, rows: ({**given, "max_tokens": 7}, rows),
    "no adapter": lambda given, rows: ({**given, "adapter": None}, rows),
    "another prompt": lambda given, rows: (given, rows[::-1]),
    "fewer prompts": lambda given, rows: (given, rows[:3]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_resume_with_something_else_is_refused_and_the_file_stays(model, source, options, done, tmp_path, change):
    changed, rows = CHANGES[change](options, source.read_text().splitlines())
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(rows))
    before = done.read_bytes()
    with pytest.raises(InputError, match=r"line \d is of another model, adapter, prompt or option"):
        infer_suite(model, other, output=done, resume=True, **changed)
    assert done.read_bytes() == before


def test_a_resume_with_a_foreign_file_is_refused(model, source, options, tmp_path):
    for content in (b"{}\n", b"\xff\xfe\n", b"[1]\n", b'{"index": 0}\n', b'{"index":0,"continuations":5}\n'):
        (tmp_path / "foreign.jsonl").write_bytes(content)
        with pytest.raises(InputError, match="line 1 is no line of a suite"):
            infer_suite(model, source, output=tmp_path / "foreign.jsonl", resume=True, **options)
        assert (tmp_path / "foreign.jsonl").read_bytes() == content


def test_misuse_is_refused_before_weights_are_loaded(model, adapter, tmp_path, monkeypatch):
    monkeypatch.setattr(Bench, "open", lambda *_, **__: pytest.fail("weights were loaded"))
    with pytest.raises(InputError, match="the drift scan holds an adapter against its base, and none was given"):
        infer(model, "Hi", scan=True)
    with pytest.raises(InputError, match="0 new tokens were asked for"):
        infer(model, "Hi", max_tokens=0)
    with pytest.raises(InputError, match="the prompt is empty"):
        infer(model, " ")
    with pytest.raises(InputError, match=r"holds no adapter_config\.json"):
        infer(model, "Hi", adapter=tmp_path)
    with pytest.raises(InputError, match="the model's context is 256"):
        infer(model, "apples " * 400, adapter=adapter)
