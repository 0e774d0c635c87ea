"""What each arm may move and what it leaves alone; the interference law on trained networks; capacity."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from geonb.coordinates.continual.arms import ARMS, Rates
from geonb.coordinates.continual.learner import TaskFactors, capacity, core_weights, cores, sides, task_phases
from geonb.coordinates.continual.pilot import Perceptron, teachers
from geonb.coordinates.continual.reading import Reading, Sizes, equal_sizes
from geonb.coordinates.continual.sequence_training import make_optimiser, train
from geonb.coordinates.modulated_linear import SharedFactors
from geonb.errors import InputError

RATES = Rates(base=0.01, lora=0.01, cores=0.03, film=0.03, theta=0.01, ewc=100.0)
PAIRS = 4
SIZES = Sizes(pairs=PAIRS, lora=2, shared=4, experts=3)


def run(name, *, optimiser="adam", count=3, steps=8):
    network, tasks = Perceptron(1, 0), teachers(count, 0)
    before = copy.deepcopy(network.state_dict())
    learned = train(ARMS[name], network, tasks, steps=steps, rates=RATES, sizes=SIZES, optimiser=optimiser)
    return network, tasks, learned, before


def moved(network, before):
    """Names of the first network's parameters that changed; cores are zero at the start and resized."""
    now = {
        name.replace(".base.linear.", ".base."): value
        for name, value in network.state_dict().items()
        if not name.endswith("cores")
    }
    changed = {name for name, value in now.items() if name in before and not torch.equal(value, before[name])}
    cored = any(bool(one.any()) for one in cores(network.maps) if one.shape[0] == 2 * PAIRS)
    return changed | ({"cores"} if cored else set())


def test_the_perceptron_has_the_stated_sizes():
    network = Perceptron(64, 0)
    assert sum(p.numel() for p in network.base_parameters()) == 2304
    assert sum(p.numel() for p in cores(network.maps)) == 20480


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_with_orthogonal_phases_no_earlier_task_feels_a_later_one(optimiser):
    network, tasks, learned, before = run("coordinates-orthogonal", optimiser=optimiser, count=2 * PAIRS)
    assert {name.split(".")[-1] for name in moved(network, before)} == {"cores"}
    for place in range(len(tasks)):
        history = [row[place] for row in learned.matrix[place:]]
        assert max(history) == min(history)
    # and they did learn: the change is not zero
    assert sum(float(p.detach().abs().sum()) for p in cores(network.maps)) > 0


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize(
    ("arm", "phases"), [("coordinates-orthogonal", "orthogonal"), ("coordinates-projected", "random")]
)
def test_the_change_at_an_earlier_coordinate_is_the_same_to_rounding_after_a_later_task(arm, phases, optimiser):
    tasks, changes = teachers(2, 0), []
    first = core_weights(task_phases(phases, PAIRS, 2, 0))[0]
    for count in (1, 2):
        network = Perceptron(1, 0)
        train(
            ARMS[arm],
            network,
            tasks[:count],
            steps=6,
            rates=RATES,
            sizes=SIZES,
            optimiser=optimiser,
        )
        changes.append(network.maps[0].dense_change(first[0, 0]).detach())
    assert torch.allclose(*changes, atol=1e-6) and float(changes[0].abs().max()) > 1e-4


def test_a_step_of_gradient_descent_is_felt_elsewhere_as_the_kernel_says():
    """-eta m k(theta, theta') G on the small core, computed from the gradient of a dense change."""
    network, task = Perceptron(PAIRS, 1), teachers(1, 1)[0]
    rng = np.random.default_rng(0)
    phases = rng.uniform(0, 2 * np.pi, (2, PAIRS))
    here, there = core_weights(phases)
    one = network.maps[0].factors
    batch = task.batch(rng)
    with torch.no_grad():
        for each in cores(network.maps):
            each.copy_(torch.randn(each.shape, generator=torch.Generator().manual_seed(3)) * 0.1)
    extra = torch.zeros(12, 12, requires_grad=True)
    x, labels = batch
    hidden = x @ network.first.base.weight.T + x @ one.right @ (one.core(here[0, 0]).detach() + extra).T @ one.left.T
    logits = hidden.relu() @ (network.second.base.weight + network.second.dense_change(here[0, 0])).T
    gradient = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, labels), extra)[0]
    old = one.core(there[0, 0]).detach()
    network.loss(batch, here).backward()
    with torch.no_grad():
        one.cores -= 0.5 * one.cores.grad
    k = np.cos(phases[0] - phases[1]).mean()
    assert torch.allclose(one.core(there[0, 0]) - old, -0.5 * PAIRS * float(k) * gradient, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "parts", "parameters", "for_one"),
    [
        ("fine-tuning", {"base"}, 2304, 2304),
        ("ewc", {"base"}, 2304, 2304),
        ("replay", {"base"}, 2304, 2304),
        ("coordinates-random", {"cores"}, 8 * 160, 8 * 160),
        ("coordinates-projected", {"cores"}, 8 * 160, 8 * 160),
        ("coordinates-learned", {"cores"}, 8 * 160 + 3 * PAIRS, 8 * 160 + PAIRS),
        ("coordinates-sides", {"cores", "sides"}, 8 * 160 + 1424, 8 * 160 + 1424),
        ("coordinates-base", {"base", "cores", "sides"}, 2304 + 8 * 160 + 1424, 2304 + 8 * 160 + 1424),
        ("joint", {"base", "cores", "sides"}, 2304 + 8 * 160 + 1424, 2304 + 8 * 160 + 1424),
        ("shared-lora", set(), 4 * 164, 4 * 164),
        ("mixture", set(), 3 * (164 + 96), 3 * (164 + 96)),
        ("lora-per-task", set(), 3 * 328, 328),
        ("o-lora", set(), 3 * 328, 3 * 328),
        ("film", set(), 3 * 2 * 68, 2 * 68),
        ("superposition", set(), 2304, 2304),
        ("frozen", set(), 0, 0),
    ],
)
def test_an_arm_moves_what_it_says_and_counts_it(name, parts, parameters, for_one):
    network, _, learned, before = run(name)
    changed = moved(network, before)
    if ARMS[name].adapters:
        # factors of another arm stand where the first ones stood: what counts is that the base is where it was
        changed = {one for one in changed if one.endswith("weight")}
    kinds = {"weight": "base", "cores": "cores", "left": "sides", "right": "sides"}
    assert {kinds[one.split(".")[-1]] for one in changed} == parts
    assert (learned.parameters, learned.read_for_one) == (parameters, for_one)


@pytest.mark.parametrize("name", ["lora-per-task", "film"])
def test_what_each_task_has_of_its_own_is_never_forgotten(name):
    _, _, learned, _ = run(name, steps=30)
    for place in range(3):
        assert all(row[place] == learned.matrix[place][place] for row in learned.matrix[place:])
    assert min(row[-1] for row in learned.matrix) > max(learned.start) - 0.05 and learned.matrix[-1] != learned.start
    # nothing of an earlier task is in a later one's own parameters
    assert learned.before == learned.start


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_step_is_seen_by_what_a_map_remembers_of_its_factors(name):
    network, task = Perceptron(1, 0), teachers(1, 0)[0]
    reading = Reading(ARMS["coordinates-orthogonal"], network, 1, SIZES, 0)
    stepper, one = make_optimiser(reading.groups(RATES, 0), name), network.maps[0]
    before = one.certified_bound()
    network.loss(task.batch(np.random.default_rng(0)), reading.read_as(0)).backward()
    stepper.step()
    assert before == 0 < one.certified_bound()


def test_no_bound_binds_one_arm_before_another():
    network = Perceptron(1, 0)
    network.maps[0].budget = 1e-6
    Reading(ARMS["lora-per-task"], network, 2, SIZES, 0)
    assert min(one.allowed() for one in network.maps) > 1e5


def test_training_u_and_v_along_undoes_what_orthogonal_phases_protect():
    _, _, held, _ = run("coordinates-orthogonal", steps=60)
    _, _, loose, _ = run("coordinates-sides", steps=60)
    assert held.matrix[-1][0] == held.matrix[0][0]
    assert loose.matrix[-1][0] < loose.matrix[0][0]


def test_learned_phases_move_with_their_task_alone():
    network, tasks = Perceptron(1, 0), teachers(2, 0)
    learned = train(ARMS["coordinates-learned"], network, tasks, steps=6, rates=RATES, sizes=SIZES)
    drawn = core_weights(task_phases("random", PAIRS, 2, 0))
    for place in range(2):
        moved_by = (learned.read_as(place).detach() - drawn[place]).abs().max()
        # at most 6 steps of Adam at 0.01 radians each
        assert 0 < float(moved_by) <= 0.0601
    alone = train(ARMS["coordinates-learned"], Perceptron(1, 0), tasks[:1], steps=6, rates=RATES, sizes=SIZES)
    # the first draw is the same whatever the number of tasks: rows of one table
    assert alone.read_as(0).shape == learned.read_as(0).shape == (1, 1, 2 * PAIRS)


@pytest.mark.parametrize("tasks", [2, 8, 32, 128, 184])
def test_arms_whose_form_leaves_a_choice_train_about_as_many_numbers(tasks):
    network = Perceptron(1, 0)
    sizes = equal_sizes(network.maps, tasks)
    assert 2 * sizes.pairs >= tasks > sizes.pairs
    own = {"coordinates": 2 * sizes.pairs * 160, "shared": sizes.shared * 164, "experts": sizes.experts * 260}
    assert sizes.lora == 1 and 164 / 160 < 1.1
    for count in (own["shared"], *([own["experts"]] if tasks > 8 else [])):
        assert count == pytest.approx(own["coordinates"], rel=0.1)


def test_sizes_that_were_asked_for_are_kept():
    found = equal_sizes(Perceptron(1, 0).maps, 8, pairs=64, lora=2)
    assert (found.pairs, found.lora) == (64, 2)


def test_forward_transfer_is_measured_before_a_task_is_learned():
    network, tasks = Perceptron(1, 0), teachers(3, 0)
    untouched = [float(network.grades(task.test, None)[:, 0].mean()) for task in tasks]
    learned = train(ARMS["fine-tuning"], network, tasks, steps=8, rates=RATES, sizes=SIZES)
    assert learned.start == pytest.approx(untouched) and learned.before[0] == learned.start[0]
    again = Perceptron(1, 0)
    train(ARMS["fine-tuning"], again, tasks[:1], steps=8, rates=RATES, sizes=SIZES)
    assert learned.before[1] == pytest.approx(float(again.grades(tasks[1].test, None)[:, 0].mean()))


def test_plain_training_forgets():
    _, _, together, _ = run("fine-tuning", steps=60)
    assert together.matrix[0][0] - together.matrix[-1][0] > 0.1


def test_a_lora_starts_as_no_change():
    _, _, learned, _ = run("lora-per-task", steps=1, count=2)
    network, tasks = Perceptron(PAIRS, 0), teachers(2, 0)
    assert network.grades(tasks[1].test, None).shape == (500, 2)
    assert learned.read_as(1) is not None


def test_one_core_for_the_batch_gives_what_one_a_token_gives():
    generator = torch.Generator().manual_seed(0)
    plain = SharedFactors(5, 7, 4, 3, generator)
    with torch.no_grad():
        plain.cores.normal_(generator=generator)
    x, weights = torch.randn(2, 6, 5, generator=generator), torch.randn(1, 1, 4, generator=generator)
    core = plain.core(weights)
    assert torch.allclose(TaskFactors.of(plain).change(x, core), plain.change(x, core), atol=1e-6)
    assert TaskFactors.of(plain).cores is plain.cores


def test_the_capacity_is_stated_and_so_is_what_happens_above_it():
    fits = capacity(task_phases("orthogonal", 4, 8, 0))
    assert fits.limit == 8 and fits.fits and fits.largest_kernel < 1e-12 and "which fit;" in fits.to_text()
    above = capacity(task_phases("orthogonal", 64, 184, 0))
    assert not above.fits and above.largest_kernel >= above.least_largest_kernel == pytest.approx(0.0489, abs=1e-4)
    assert "do not fit: whatever they are, some two interfere with |k| >= 0.0489" in above.to_text()


def test_orthogonal_weights_are_exact():
    rows = torch.cat(core_weights(task_phases("orthogonal", 8, 16, 0)))[:, 0]
    assert set(rows.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert torch.equal(rows @ rows.T, 8 * torch.eye(16))


def test_random_coordinates_are_nearly_orthogonal_and_no_more():
    found = capacity(task_phases("random", 64, 40, 0))
    assert 0.1 < found.largest_kernel < 0.5


def test_teachers_are_seeded_and_their_classes_about_balanced():
    first, again = teachers(2, 5)[1], teachers(3, 5)[1]
    assert torch.equal(first.test[0], again.test[0]) and torch.equal(first.test[1], again.test[1])
    assert 0.25 <= first.chance() < 0.5


def test_wrong_names_are_refused():
    with pytest.raises(InputError, match="optimiser 'adagrad' was given; allowed are sgd and adam"):
        run("frozen", optimiser="adagrad")
    with pytest.raises(InputError, match="phases of kind 'golden' were asked for; allowed are orthogonal and random"):
        task_phases("golden", 4, 2, 0)


def test_every_arm_names_groups_that_exist():
    for arm in ARMS.values():
        assert set(arm.trains) <= {"base", "sides", "cores", "lora", "film", "superposed", "theta"}
        assert bool(arm.adapters) == ("lora" in arm.trains) and arm.keeps in (
            "",
            "ewc",
            "replay",
            "projection",
            "apart",
        )
        assert sides(Perceptron(2, 0).maps)
