"""Data made to break a method: what is changed is exactly what the name says, and what is evaluated is not touched."""

import hashlib
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from geonb.assets.build import sources
from geonb.assets.build.sources import Source
from geonb.cli.app import app, main
from geonb.errors import InputError
from geonb.record_lines import append_line
from geonb.workbench.benchmark.arm import DEFAULT, adamw
from geonb.workbench.benchmark.conditions import DATA, base_text, deranged, windows
from geonb.workbench.benchmark.design import SMALL_AGAIN, Cell
from geonb.workbench.benchmark.domains import DOMAINS, domain_files, domain_of, split_of
from tests.workbench.benchmark.small import row_of


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("conditions")


@pytest.mark.parametrize("domain", ["kjv", "chat"])
def test_sixty_four_examples_are_the_first_that_the_seed_draws(domain, folder):
    whole, held = split_of(DOMAINS[domain], 0)
    few, same = map(read, domain_files(f"{domain}+64", 0, folder))
    assert few == whole[:64] and len(few) == 64
    assert same == held


@pytest.mark.parametrize(("percent", "domain"), [(10, "chat"), (50, "chat"), (50, "arithmetic")])
def test_exactly_the_share_of_the_answers_belongs_to_another_question(percent, domain, folder):
    clean, held = split_of(DOMAINS[domain], 0)
    noisy, same = map(read, domain_files(f"{domain}+swapped-{percent}", 0, folder))
    assert same == held
    asked = [[record["messages"][:-1] for record in records] for records in (clean, noisy)]
    assert asked[0] == asked[1]
    answers = [[record["messages"][-1]["content"] for record in records] for records in (clean, noisy)]
    assert sum(one != other for one, other in zip(*answers, strict=True)) == round(len(clean) * percent / 100)
    assert Counter(answers[0]) == Counter(answers[1])
    assert [record["messages"][-1]["role"] for record in noisy] == ["assistant"] * len(noisy)


def test_swaps_are_the_seeds_own_and_the_same_each_time(folder, tmp_path):
    name = "chat+swapped-50"
    first, again, other = (
        read(domain_files(name, seed, place)[0]) for seed, place in ((0, folder), (0, tmp_path), (1, folder))
    )
    assert first == again != other


def test_a_swapped_answer_is_drawn_from_all_of_them_and_not_from_its_neighbours(folder):
    """Of the swapped word problems about as many get the answer of another kind of problem as chance gives them."""
    clean, _ = split_of(DOMAINS["chat"], 0)
    noisy = read(domain_files("chat+swapped-50", 0, folder)[0])
    kind = {record["messages"][-1]["content"]: record["group"] for record in clean}
    changed = [
        (a["group"], kind[b["messages"][-1]["content"]])
        for a, b in zip(clean, noisy, strict=True)
        if a["messages"] != b["messages"]
    ]
    counts = Counter(record["group"] for record in clean)
    chance = sum((count / len(clean)) ** 2 for count in counts.values())
    spread = (chance * (1 - chance) / len(changed)) ** 0.5
    assert abs(sum(a == b for a, b in changed) / len(changed) - chance) < 5 * spread


@given(st.lists(st.sampled_from("abcdef"), max_size=30), st.randoms(use_true_random=False))
def test_no_value_of_an_order_stands_where_its_equal_stood_wherever_that_is_possible(values, generator):
    most = max(Counter(values).values(), default=0)
    if 2 * most > len(values):
        with pytest.raises(InputError, match="one answer makes up more than half"):
            deranged(values, generator)
        return
    found = deranged(values, generator)
    assert Counter(found) == Counter(values)
    assert all(one != other for one, other in zip(values, found, strict=True))


def test_a_domain_without_answers_and_an_unknown_condition_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match="answers were to be swapped in a domain that has none: give one of chat"):
        domain_files("kjv+swapped-10", 0, tmp_path)
    with pytest.raises(InputError, match=f"'loud' of a domain was given; the benchmark has {', '.join(DATA)}"):
        domain_files("kjv+loud", 0, tmp_path)
    with pytest.raises(InputError, match="the domain 'law' was given; the benchmark has kjv"):
        domain_files("law+64", 0, tmp_path)
    assert not list(tmp_path.rglob("*.jsonl"))


# -- text of the base's own kind ----------------------------------------------------------------------------------------


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Two packages of documentation of 240 pages each; no line is on two pages."""
    made = []
    for package in ("alpha-doc", "beta-doc"):
        folder = tmp_path / package
        folder.mkdir()
        for number in range(240):
            body = " ".join(f"{package} page {number} says word {word}." for word in range(60))
            (folder / f"page{number:03}.html").write_text(f"<html><body><p>{body}</p></body></html>")
        made.append(Source(package, str(folder), "MIT", "nobody"))
    monkeypatch.setattr(sources, "SOURCES", tuple(made))
    return tmp_path


def held_out(package, number):
    digest = hashlib.sha256(f"{package}/page{number:03}.html".encode()).digest()
    return int.from_bytes(digest[:4], "big") % 40 == 0


def pages_of(records):
    """(package, page) of every record: each window holds its page's name whole at least once."""
    found = set()
    for record in records:
        words = record["text"].split()
        place = next(i for i, word in enumerate(words[:-2]) if word.endswith("-doc") and words[i + 1] == "page")
        found.add((words[place], int(words[place + 2])))
    return found


def test_the_bases_own_kind_is_pages_that_it_was_kept_from_and_that_measure_nothing(packages):
    expected = {(package, n) for package in ("alpha-doc", "beta-doc") for n in range(240) if held_out(package, n)}
    assert len(expected) > 6
    training, evaluation = map(pages_of, base_text([]))
    assert training | evaluation == expected and not training & evaluation
    assert {package for package, _ in evaluation} == {"alpha-doc", "beta-doc"}
    one = min(training)
    without = base_text([f"{one[0]} page {one[1]} says word 7. {one[0]} page {one[1]} says"])
    assert one not in pages_of(without[0]) | pages_of(without[1])
    assert pages_of(without[0]) | pages_of(without[1]) == expected - {one}


def test_text_of_the_bases_own_kind_is_a_domain_of_its_own_and_none_of_the_six(packages, tmp_path):
    assert "base" not in DOMAINS and domain_of("base").name == "base"
    training, evaluation = map(read, domain_files("base", 0, tmp_path / "data"))
    assert training and evaluation and not pages_of(training) & pages_of(evaluation)


def test_without_the_documentation_packages_the_sentence_says_which_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SOURCES", (Source("gamma-doc", str(tmp_path / "gone"), "MIT", "nobody"),))
    with pytest.raises(InputError, match="the corpus needs Debian's gamma-doc: install that package"):
        domain_files("base", 0, tmp_path)


@given(st.text("ab \n", max_size=900))
def test_windows_are_the_text_in_order_and_none_is_long(text):
    found = windows(text, 50)
    assert all(len(window) <= 50 for window in found)
    # nothing but spaces and line feeds between them is lost, and less than one window at the end
    joined = "".join("".join(found).split())
    plain = "".join(text.split())
    assert plain.startswith(joined) and len(plain) - len(joined) < 50


# -- the command ----------------------------------------------------------------------------------------------------------


def state(path, *arguments):
    result = CliRunner().invoke(app, ["benchmark", "zero-knob", "--list", "--json", "--rows", str(path), *arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["stages"]


def test_the_stages_can_be_chosen_by_how_their_names_begin_and_conditions_by_what_they_were_made_of(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    for name in ("kjv", "chat"):
        append_line(path, row_of(Cell("elsewhere", name).job(adamw(1e-2)), 2.0))
        job = Cell(SMALL_AGAIN, name).job(adamw(1e-2))
        append_line(path, row_of(job, 2.0))
    chosen = state(path, "--stage", "break it")
    assert len(chosen) == 4 and all(one["name"].startswith("break it: ") for one in chosen)
    # geonb's three arms and three rates in each cell: 4 of 64 examples, 2 of swaps, base text; 6; 12 and one after chat
    # the first look was at a model that cannot be made again
    assert [one["missing"] for one in chosen] == [0, 6 * 7, 6 * 6, 6 * 11]
    assert state(path, "--stage", "break it", "--model", SMALL_AGAIN) == chosen
    (one,) = state(path, "--stage", "break it: few", "--domain", "kjv")
    assert one["missing"] == 6 * 2
    *_, one = state(path, "--stage", "break it: c", "--model", f"{SMALL_AGAIN}+bf16")
    assert one["missing"] == 6 * 2
    with pytest.raises(SystemExit):
        main(["benchmark", "zero-knob", "--rows", str(path), "--stage", "mend it"])
    assert "--stage was given mend it; the design has geonb and AdamW at the tail's rank," in capsys.readouterr().err


def test_the_table_holds_plain_cells_or_broken_ones_and_never_both(tmp_path):
    path = tmp_path / "rows.jsonl"
    for cell, loss in ((Cell("m", "kjv"), 1.0), (Cell("m", "kjv", planned=50), 3.0), (Cell("m", "chat+64", 4), 4.0)):
        for arm, share in ((DEFAULT, 1.0), (adamw(1e-3), 2.0)):
            append_line(path, row_of(cell.job(arm), loss * share))

    def cells(*more):
        result = CliRunner().invoke(app, ["benchmark", "table", "--json", "--rows", str(path), *more])
        assert result.exit_code == 0, result.output
        return [one["cell"] for one in json.loads(result.stdout)["cells"]]

    assert cells() == ["m/kjv/T200/b16"]
    assert cells("--break-it") == ["m/chat+64/T4/b16", "m/kjv/T200/b16/planned50"]
