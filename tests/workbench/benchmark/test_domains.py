"""The benchmark's domains: what a seed draws, what is kept apart, and whether every answer is right."""

import json
import re
import sysconfig
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from geonb.errors import InputError
from geonb.workbench.benchmark.domains import DOMAINS, N_EVALUATION, Domain, domain_files, domain_of, split_of

LIBRARY = Path(sysconfig.get_paths()["stdlib"])


def words(record):
    """The one text that makes a record what it is."""
    return record.get("text") or "\n".join(turn["content"] for turn in record["messages"])


@pytest.fixture(scope="module", params=DOMAINS)
def drawn(request):
    """The name of each domain with the split that seed 0 draws."""
    return request.param, *split_of(DOMAINS[request.param], 0)


def test_training_and_evaluation_share_no_record(drawn):
    _, training, evaluation = drawn
    assert not {words(record) for record in training} & {words(record) for record in evaluation}
    assert len(evaluation) == N_EVALUATION
    assert len(training) > 1500


@pytest.mark.parametrize("apart", [False, True])
def test_a_record_that_a_source_holds_twice_is_never_on_both_sides(apart):
    twice = [{"text": f"record {number % 600}"} for number in range(1200)]
    domain = Domain("twice", "", True, False, lambda: (twice, twice if apart else []))
    for seed in range(3):
        training, evaluation = split_of(domain, seed)
        assert len(evaluation) == N_EVALUATION and len(training) > 700
        assert not {words(record) for record in training} & {words(record) for record in evaluation}


@pytest.mark.parametrize("name", ["code", "modules"])
def test_code_to_train_on_and_code_to_evaluate_on_come_from_different_files(name):
    training, evaluation = split_of(DOMAINS[name], 0)
    texts = {path: set(map(str.rstrip, path.read_text(encoding="utf-8", errors="ignore").splitlines()))
             for path in LIBRARY.rglob("*.py") if "site-packages" not in path.parts and "test" not in path.parts}  # fmt: skip
    holders = {}
    for path, lines in texts.items():
        for line in lines:
            holders.setdefault(line, set()).add(path)

    def sources(records):
        """The files that alone hold every whole line of a record."""
        found = set()
        for record in records:
            text = words(record)
            if name == "modules":
                text = text.partition("\n")[2].rpartition("\n")[0]
            lines = text.split("\n")[:-1]  # the last may be cut
            candidates = set.intersection(*(holders.get(line, set()) for line in lines)) if lines else set()
            if len(candidates) == 1:
                found |= candidates
        return found

    for_training, for_evaluation = sources(training), sources(evaluation)
    assert len(for_training) > 20 and len(for_evaluation) > 5
    assert not for_training & for_evaluation


def test_one_seed_gives_the_same_bytes_and_another_seed_another_split(drawn, tmp_path):
    name = drawn[0]
    first = [path.read_bytes() for path in domain_files(name, 3, tmp_path / "a")]
    again = [path.read_bytes() for path in domain_files(name, 3, tmp_path / "b")]
    other = [path.read_bytes() for path in domain_files(name, 4, tmp_path / "a")]
    assert first == again
    assert first[0] != other[0] and first[1] != other[1]
    read = [[json.loads(line) for line in text.decode().splitlines()] for text in first]
    assert read == list(split_of(DOMAINS[name], 3))


def test_files_that_are_there_are_handed_out_again_without_being_touched(tmp_path):
    paths = domain_files("chat", 0, tmp_path)
    before = [path.stat().st_mtime_ns for path in paths]
    assert domain_files("chat", 0, tmp_path) == paths
    assert [path.stat().st_mtime_ns for path in paths] == before


def test_a_limit_keeps_the_first_training_records_and_all_of_the_evaluation(tmp_path):
    whole, held = split_of(DOMAINS["names"], 1)
    few, same = split_of(DOMAINS["names"], 1, limit=7)
    assert few == whole[:7] and same == held
    paths = domain_files("names", 1, tmp_path, limit=7)
    assert len(paths[0].read_text().splitlines()) == 7
    assert paths != domain_files("names", 1, tmp_path)


def test_the_four_packages_are_balanced_so_that_a_constant_answer_is_right_in_a_quarter():
    training, evaluation = DOMAINS["modules"].pools()
    for side in (training, evaluation):
        counts = Counter(record["messages"][1]["content"] for record in side)
        assert set(counts) == set("ABCD") and len(set(counts.values())) == 1
    # what a seed evaluates is drawn from the balanced pool: within four standard deviations of a quarter
    spread = (0.25 * 0.75 / N_EVALUATION) ** 0.5
    for seed in range(5):
        counts = Counter(record["messages"][1]["content"] for record in split_of(DOMAINS["modules"], seed)[1])
        assert all(abs(count / N_EVALUATION - 0.25) < 4 * spread for count in counts.values())


def test_the_package_named_by_each_letter_is_the_one_that_holds_the_code():
    named = dict(re.findall(r"([A-D]) (\w+)", DOMAINS["modules"].pools()[0][0]["messages"][0]["content"]))
    assert len(named) == 4
    joined = {
        letter: {
            line.rstrip()
            for path in (LIBRARY / package).rglob("*.py")
            for line in path.read_text(encoding="utf-8", errors="ignore").splitlines()
        }
        for letter, package in named.items()
    }
    for record in split_of(DOMAINS["modules"], 0)[1]:
        question, answer = (turn["content"] for turn in record["messages"])
        lines = question.partition("\n")[2].split("\n")[:-1]
        assert lines and joined[answer].issuperset(lines)


def test_every_arithmetic_answer_is_what_python_computes():
    records = DOMAINS["arithmetic"].pools()[0]
    assert len({words(record) for record in records}) == len(records) == 5000
    for record in records:
        task, answer = (turn["content"] for turn in record["messages"])
        first, second = re.fullmatch(r"What is (.+), then (.+)\?", task).groups()
        middle = eval(first)
        last = eval(f"({middle}) {second}")
        assert answer == f"{first} = {middle}. {middle} {second} = {last}"


def test_every_name_is_the_one_that_unicode_gives_and_no_character_is_in_two_records():
    seen = Counter()
    for record in DOMAINS["names"].pools()[0]:
        lines = record["text"].split("\n")
        assert len(lines) == 4
        for line in lines:
            point, _, name = line.partition(" ")
            character = chr(int(point.removeprefix("U+"), 16))
            assert unicodedata.name(character) == name
            seen[character] += 1
    assert max(seen.values()) == 1 and len(seen) > 20_000


def test_no_record_is_longer_than_the_context_of_the_embedded_model(drawn):
    from tokenizers import Tokenizer

    from geonb.assets import embedded_model_folder

    folder = embedded_model_folder()
    context = json.loads((folder / "config.json").read_text())["max_position_embeddings"]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    _, training, evaluation = drawn
    records = [*training, *evaluation]
    # a mark before and one after each turn of a chat, one end after a text
    marks = [2 * len(record.get("messages", [])) or 1 for record in records]
    lengths = [len(one.ids) for one in tokenizer.encode_batch([words(record) for record in records])]
    assert max(length + more for length, more in zip(lengths, marks, strict=True)) <= context


def test_an_unknown_domain_is_one_sentence_that_lists_them(tmp_path):
    with pytest.raises(InputError, match="the domain 'law' was given; the benchmark has kjv, code, arithmetic, chat"):
        domain_of("law")
    with pytest.raises(InputError, match="the domain 'law' was given"):
        domain_files("law", 0, tmp_path)
    assert not list(tmp_path.iterdir())
