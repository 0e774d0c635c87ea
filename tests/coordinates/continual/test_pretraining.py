"""The base is kept under what it depends on, and goes on where it stopped as if it had not."""

from __future__ import annotations

import pytest
import torch

from geonb.coordinates.continual import pretraining as module
from geonb.coordinates.continual.operations import operations, sequence
from geonb.coordinates.continual.pretraining import fingerprint, pretrain
from geonb.coordinates.continual.selection import kept_for_base, task_order, within_reach
from geonb.errors import InputError

FEW = sequence(5, 3)


def equal(first, second):
    return all(torch.equal(one, two) for one, two in zip(first.parameters(), second.parameters(), strict=True))


class Stopped(Exception):
    pass


def test_a_run_that_was_killed_ends_where_one_that_was_not_does(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SAVED_EVERY", 3)
    asked = {"steps": 8, "seed": 0, "batch": 4}

    def kill(done, total):
        # after the state of step 6 was written
        if done == 7:
            raise Stopped

    with pytest.raises(Stopped):
        pretrain(FEW, **asked, folder=tmp_path, progress=kill)
    steps = []
    resumed = pretrain(FEW, **asked, folder=tmp_path, progress=lambda done, total: steps.append(done))
    assert steps == [7, 8] and equal(resumed, pretrain(FEW, **asked))
    # and now nothing is left to do
    steps.clear()
    assert equal(pretrain(FEW, **asked, folder=tmp_path, progress=lambda done, total: steps.append(done)), resumed)
    assert not steps and len(list(tmp_path.iterdir())) == 1


def test_a_damaged_file_is_made_again(tmp_path):
    made = pretrain(FEW, steps=2, seed=0, batch=4, folder=tmp_path)
    stored = next(tmp_path.iterdir())
    stored.write_bytes(stored.read_bytes()[:100])
    assert equal(pretrain(FEW, steps=2, seed=0, batch=4, folder=tmp_path), made)


def test_anything_that_changes_the_base_changes_its_name():
    names = {
        fingerprint(FEW, 8, 0, 4, 0.1),
        fingerprint(FEW[1:], 8, 0, 4, 0.1),
        fingerprint(FEW, 9, 0, 4, 0.1),
        fingerprint(FEW, 8, 1, 4, 0.1),
        fingerprint(FEW, 8, 0, 5, 0.1),
        fingerprint(FEW, 8, 0, 4, 0.2),
    }
    assert len(names) == 6 and fingerprint(FEW, 8, 0, 4, 0.1) in names


def test_no_operations_are_refused():
    with pytest.raises(InputError, match="no operations were given to pre-train on"):
        pretrain((), steps=1, seed=0)


def test_no_task_up_to_144_is_one_that_the_base_has_seen():
    seen = {one.name for one in kept_for_base()}
    assert len(seen) == 40 and not seen & {one.name for one in within_reach()}
    for seed in range(3):
        assert not seen & {one.name for one in task_order(144, seed)}
        everything = task_order(184, seed)
        assert {one.name for one in everything} == {one.name for one in operations()} and len(everything) == 184


def test_the_operations_within_reach_come_first_in_an_order_of_the_seeds():
    reach = {one.name for one in within_reach()}
    first, second = ([one.name for one in task_order(len(reach), seed)] for seed in (0, 1))
    assert set(first) == set(second) == reach and first != second
    assert [one.name for one in task_order(8, 0)] == first[:8]
    with pytest.raises(InputError, match="185 operations were asked for"):
        task_order(185, 0)
