"""pass@k against every subset of samples, McNemar's test and the intervals against scipy."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from scipy.stats import binomtest

from geonb.errors import InputError
from geonb.workbench.compare_adapters import paired_test
from geonb.workbench.star.scores import accuracy_of, by_group, half_width, pass_at, pass_measured, right_by_chance


@pytest.mark.parametrize(("n", "correct"), [(n, c) for n in range(1, 8) for c in range(n + 1)])
def test_pass_at_k_is_the_share_of_subsets_that_hold_a_right_one(n, correct):
    samples = [True] * correct + [False] * (n - correct)
    for k in range(1, n + 1):
        subsets = list(itertools.combinations(samples, k))
        assert pass_at(k, n, correct) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-15)


def test_pass_at_k_has_no_bias():
    # the mean over all outcomes of n draws with p is 1 - (1 - p)^k, whatever n is
    p, n, k = 0.3, 6, 3
    mean = sum(_binomial(n, c, p) * pass_at(k, n, c) for c in range(n + 1))
    assert mean == pytest.approx(1 - (1 - p) ** k)


def _binomial(n, c, p):
    from scipy.stats import binom

    return float(binom.pmf(c, n, p))


@pytest.mark.parametrize(("k", "n", "correct"), [(0, 4, 1), (5, 4, 1), (2, 4, 5), (2, 4, -1)])
def test_an_impossible_pass_at_k_is_refused(k, n, correct):
    with pytest.raises(InputError, match="allowed are k from 1 to n"):
        pass_at(k, n, correct)


def test_the_mean_is_over_problems_and_its_interval_holds_it():
    measured = pass_measured([0, 1, 4, 2], 4, 1, seed=3)
    assert measured.value == pytest.approx(7 / 16) and measured.n == 4
    assert measured.interval[0] <= measured.value <= measured.interval[1]
    assert pass_measured([2], 4, 1, seed=3).interval is None


@pytest.mark.parametrize("every", [0, 4])
def test_no_success_at_all_is_still_uncertain(every):
    told = binomtest(every * 5, 20).proportion_ci(method="wilson")
    measured = pass_measured([every] * 20, 4, 2, seed=3)
    assert measured.value == every / 4 and measured.interval == pytest.approx((told.low, told.high))
    assert measured.interval[1] - measured.interval[0] > 0.1


def test_an_accuracy_has_the_wilson_interval_of_scipy():
    measured = accuracy_of([True] * 7 + [False] * 13)
    told = binomtest(7, 20).proportion_ci(method="wilson")
    assert measured.value == 0.35 and measured.interval == pytest.approx((told.low, told.high))
    assert half_width(500) == pytest.approx(0.0437, abs=1e-3)


@given(some.lists(some.tuples(some.booleans(), some.booleans()), min_size=2, max_size=40))
def test_two_rounds_are_compared_by_the_exact_binomial_test_of_what_changed(pairs):
    before, after = ([float(pair[side]) for pair in pairs] for side in (0, 1))
    gained, lost = (sum(a != b and b == side for a, b in pairs) for side in (True, False))
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    told = paired_test(before, after, higher_is_better=True, unit="of the problems", seed=0)
    assert told.counts.p == pytest.approx(expected)
    outcome = "no significant difference" if expected >= 0.05 else "improved" if gained > lost else "degraded"
    assert told.outcome == outcome


def test_groups_are_counted_and_problems_without_one_left_out():
    assert by_group(["b", None, "a", "b"], [True, True, False, False]) == {"a": (0, 1), "b": (1, 2)}


def test_a_sequence_of_tests_that_ends_at_its_first_failure_errs_in_at_most_five_percent_of_runs():
    # nothing ever improves: every round answers anew with the same probability, and ten rounds are allowed
    rng = np.random.default_rng(8)
    wrong = 0
    for _ in range(400):
        rounds = (rng.random((11, 60)) < 0.3) * 1.0
        tests = (
            paired_test(one, two, higher_is_better=True, unit="", seed=0) for one, two in itertools.pairwise(rounds)
        )
        named_better = list(itertools.takewhile(lambda told: told.outcome == "improved", tests))
        wrong += len(named_better) > 0
    assert binomtest(wrong, 400, 0.05, alternative="greater").pvalue > 0.001


def test_chance_is_what_every_shuffle_of_the_answers_gives_on_average():
    drawn = [["1", "2"], ["2", None], ["3", "the 1"], ["x", "x"], ["y", "x"]]
    answers, groups = ["1", "2", "3", "X", "y"], ["n", "n", "n", "t", "t"]

    def right(order):
        # spelled out, without the check under test
        plain = [{"the 1": "1", "x": "X"}.get(one, one) for given in drawn for one in given]
        return sum(one == answers[order[place // 2]] for place, one in enumerate(plain))

    orders = [[*n, *t] for n in itertools.permutations(range(3)) for t in itertools.permutations((3, 4))]
    expected = [right(order) for order in orders]
    told = right_by_chance(drawn, answers, groups, seed=[1])
    assert told.value == pytest.approx(np.mean(expected), abs=4 * np.std(expected) / np.sqrt(200))
    assert min(expected) <= told.interval[0] <= told.interval[1] <= max(expected)
    assert told == right_by_chance(drawn, answers, groups, seed=[1])


def test_a_model_that_always_says_the_same_is_right_by_luck_alone():
    answers = ["red", "blue", "green"] * 10
    told = right_by_chance([["red"] * 2] * 30, answers, [None] * 30, seed=[1])
    assert (told.value, told.interval) == (20.0, (20.0, 20.0))


def test_an_answer_of_zero_counts_and_an_empty_one_never_does():
    assert right_by_chance([["0"], ["0.0"]], ["0", "0"], [None] * 2, seed=[1]).value == 2
    assert right_by_chance([[""], [None]], ["", ""], [None] * 2, seed=[1]).value == 0
