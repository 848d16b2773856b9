"""Who is held out, in which order subjects come, and reading ahead."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpc.engine import Batches
from hpc.errors import InputError
from udipdist import feed
from udipdist.volumes.store import VolumeStore


def test_a_person_stays_on_the_same_side():
    names = [f"P{i}" for i in range(2000)]
    held_out = feed.split(names, 0.2)
    assert 0.17 < held_out.mean() < 0.23
    np.testing.assert_array_equal(feed.split(names[500:1500][::-1], 0.2), held_out[500:1500][::-1])
    assert (feed.split(names, 0.4) >= held_out).all()
    assert not feed.split(names, 0.0).any()


@pytest.mark.parametrize(("ranks", "micro"), [(1, None), (2, None), (4, None), (2, 2), (1, 1)])
def test_the_global_order_does_not_depend_on_ranks(ranks, micro):
    rows = np.arange(100, 130)
    sampler = feed.Sampler(rows, Batches.split(8, ranks, micro), seed=5)
    assert sampler.steps == 3
    shares = [np.array(sampler.epoch(2, rank, ranks)).reshape(3, -1) for rank in range(ranks)]
    together = np.sort(np.concatenate(shares, axis=1), axis=1)
    reference = np.array(feed.Sampler(rows, Batches(8, 8, 1), seed=5).epoch(2, 0, 1))
    np.testing.assert_array_equal(together, np.sort(reference, axis=1))
    assert len(np.unique(reference)) == 24


def test_an_epoch_can_be_entered_in_its_middle():
    sampler = feed.Sampler(np.arange(30), Batches.split(8, 2, 2), seed=0)
    np.testing.assert_array_equal(sampler.epoch(1, 1, 2, first=2), sampler.epoch(1, 1, 2)[4:])
    assert not np.array_equal(sampler.epoch(0, 0, 2), sampler.epoch(1, 0, 2))


def test_in_memory_and_read_ahead_are_the_same(store, monkeypatch):
    volumes = VolumeStore.open(store)
    rows = np.flatnonzero(volumes.valid)
    batches = [rows[[5, 1, 7]], rows[[0]], rows[10:14]] * 4
    kept = feed.Subjects(volumes, lambda volumes: volumes * 2, rows)
    monkeypatch.setattr(feed, "_RESIDENT_SHARE", 0.0)
    read = feed.Subjects(volumes, lambda volumes: volumes * 2, rows)
    assert kept._kept is not None and read._kept is None
    for rows_of_batch, a, b in zip(batches, kept.stream(batches), read.stream(batches), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, torch.from_numpy(volumes.normalised(rows_of_batch)) * 2)


def test_an_error_while_reading_ahead_arrives(store, monkeypatch):
    volumes = VolumeStore.open(store)
    rows = np.flatnonzero(volumes.valid)
    monkeypatch.setattr(feed, "_RESIDENT_SHARE", 0.0)
    read = feed.Subjects(volumes, lambda volumes: volumes, rows)
    bad = np.flatnonzero(~volumes.valid)
    with pytest.raises(InputError, match="subject S999 could not be read"):
        list(read.stream([rows[:2], bad, rows[:2]]))


def test_a_subject_without_brain_does_not_reach_the_loss(store):
    volumes = VolumeStore.open(store)
    rows = np.flatnonzero(volumes.valid)[:5]
    blind = volumes.subjects[rows[3]]

    def prepare(batch: torch.Tensor) -> torch.Tensor:
        if len(batch) == 5:
            batch[3] = 0
        return batch

    with pytest.raises(InputError, match=f"no brain inside the network's tokens in subject {blind};"):
        feed.Subjects(volumes, prepare, rows)


def test_a_subject_without_brain_is_named():
    prepared = torch.ones(3, 4, 5)
    prepared[1] = 0
    with pytest.raises(InputError, match="no brain inside the network's tokens in subject B"):
        feed.require_brain(prepared, ["A", "B", "C"], "store.zarr")
