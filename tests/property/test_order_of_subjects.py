"""An epoch is everybody once: on any number of ranks, read by any number of workers, stopped and gone on with."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from hpc.engine import Batches
from udipdist.training.feed import Sampler

SIZES = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3))  # ranks, micro-batch, accumulation


def sampler(rows: np.ndarray, sizes: tuple[int, int, int], seed: int) -> Sampler:
    ranks, micro, accumulation = sizes
    return Sampler(rows, Batches(ranks * micro * accumulation, micro, accumulation), seed)


def of_all_ranks(taken: Sampler, epoch: int, ranks: int, done: int = 0) -> list[np.ndarray]:
    """The global batches in order, each as a set."""
    shares = [taken.epoch(epoch, rank, ranks, done) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1  # no rank waits for another
    assert all(len(micro) == taken.batches.micro for share in shares for micro in share)
    micros = [micro for turn in zip(*shares, strict=True) for micro in turn]
    per_step = taken.batches.accumulation * ranks
    return [np.sort(np.concatenate(micros[i : i + per_step])) for i in range(0, len(micros), per_step)]


@settings(max_examples=200, deadline=None)
@given(n=st.integers(0, 90), sizes=SIZES, seed=st.integers(0, 5), epoch=st.integers(0, 9))
def test_everybody_comes_once_or_is_said_to_be_left_out(n, sizes, seed, epoch):
    rows = np.arange(1000, 1000 + n)
    taken = sampler(rows, sizes, seed)
    batches = of_all_ranks(taken, epoch, sizes[0])
    assert len(batches) == taken.steps and len(taken.left_out(epoch)) < taken.batches.total
    seen = np.concatenate([*batches, taken.left_out(epoch)])
    np.testing.assert_array_equal(np.sort(seen), rows)


@settings(max_examples=200, deadline=None)
@given(n=st.integers(1, 90), before=SIZES, after=SIZES, seed=st.integers(0, 5), data=st.data())
def test_another_number_of_ranks_goes_on_with_exactly_the_rest(n, before, after, seed, data):
    rows = np.arange(n)
    first, second = sampler(rows, before, seed), sampler(rows, after, seed)
    steps = data.draw(st.integers(0, first.steps))
    done = steps * first.batches.total
    used = of_all_ranks(first, 3, before[0])[:steps]
    rest = of_all_ranks(second, 3, after[0], done)
    seen = np.concatenate([*used, *rest, second.left_out(3, done)])
    np.testing.assert_array_equal(np.sort(seen), rows)
    if first.batches.total == second.batches.total:  # the very batches of a run that was not stopped
        for found, expected in zip([*used, *rest], of_all_ranks(first, 3, before[0]), strict=True):
            np.testing.assert_array_equal(found, expected)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(8, 60), ranks=st.integers(1, 3), workers=st.integers(1, 6), seed=st.integers(0, 3))
def test_threads_that_read_change_neither_order_nor_number(n, ranks, workers, seed):
    taken = sampler(np.arange(n), (ranks, 2, 1), seed)
    orders = [taken.epoch(0, rank, ranks) for rank in range(ranks)]
    with ThreadPoolExecutor(workers) as threads:
        for order in orders:
            for expected, found in zip(order, threads.map(_Numbers().__getitems__, order), strict=True):
                np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_worker_processes_change_neither_order_nor_number(workers):
    taken = sampler(np.arange(50), (2, 3, 1), 7)
    orders = [taken.epoch(0, rank, 2) for rank in range(2)]
    context = {"multiprocessing_context": "fork"} if workers else {}
    seen = [taken.left_out(0)]
    for order in orders:
        loader = DataLoader(_Numbers(), batch_sampler=order, num_workers=workers, **context)
        for expected, found in zip(order, loader, strict=True):
            np.testing.assert_array_equal(found, expected)
            seen.append(found.numpy())
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(50))


class _Numbers(Dataset):
    """A subject is its number."""

    def __getitems__(self, rows):
        return [int(row) for row in rows]
