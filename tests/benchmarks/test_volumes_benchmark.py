"""The benchmark of volumes ends with what it promises; its volumes and readers are what they claim. Not how fast."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch

from benchmarks import clock as clocks
from benchmarks import ingesting, scans, steps, volume_peers, volume_readers, volumes
from benchmarks.clock import Cost, clock, one_core
from udipdist.models.layers.tokens import PAPER_PATCH, Patcher
from udipdist.volumes import packed
from udipdist.volumes.ingest import ingest
from udipdist.volumes.store import VolumeStore


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two volumes, and the folder of their store."""
    folder = tmp_path_factory.mktemp("volumes")
    paths = scans.make(folder / "scans", 2)
    ingest(ingesting.config(folder / "scans", folder / "store.zarr"))
    return paths, folder


def test_volumes_are_as_a_cohort_has_them(made):
    paths, _ = made
    first, second = (nib.load(path) for path in paths)
    assert first.shape == scans.SHAPE and first.get_data_dtype() == np.int16
    assert nib.aff2axcodes(first.affine) == ("L", "A", "S")
    assert all(2.3e6 < path.stat().st_size < 3.3e6 for path in paths)
    one, other = np.asarray(first.dataobj), np.asarray(second.dataobj)
    brain = scans.template_brain() > 0
    assert 0.2 < brain.mean() < 0.3
    np.testing.assert_array_equal(one != 0, brain)
    assert 0.6 < np.corrcoef(one[brain], other[brain])[0, 1] < 0.98
    nilearn_world = np.array([-30.0, -20, 50, 1])  # a point left of the middle is in the same place of both grids
    assert one[tuple((np.linalg.inv(first.affine) @ nilearn_world)[:3].astype(int))] > 0


def test_volumes_that_are_there_are_kept(made):
    paths, _ = made
    before = [path.stat().st_mtime_ns for path in paths]
    assert scans.make(paths[0].parent, 2) == paths
    assert [path.stat().st_mtime_ns for path in paths] == before
    assert sorted(paths[0].parent.iterdir()) == paths
    np.testing.assert_array_equal(scans.volume(scans.template_brain(), 1), nib.load(paths[1]).dataobj)


def test_every_way_reads_the_same_brain(made):
    paths, folder = made
    store = VolumeStore.open(folder / "store.zarr")
    patcher = Patcher(store.mask, PAPER_PATCH)
    ours = packed.pack(store, patcher.gather()).normalised([0, 1])
    for i, path in enumerate(paths):
        volume = volume_peers.published(path)
        assert volume.shape == volume_peers.PADDED and volume.dtype == np.float32
        turned = np.ascontiguousarray(volume[::-1, 3:-3])  # the file's first axis runs to the left
        np.testing.assert_allclose(patcher(torch.from_numpy(turned)[None])[0].numpy(), ours[i], rtol=1e-5, atol=1e-6)


def test_monai_gives_what_the_published_code_gives(made, tmp_path):
    pytest.importorskip("monai", reason="MONAI is not installed (pip install 'udipdist[bench]')")
    paths, _ = made
    cached = volume_peers.monai_cached(paths)()
    persistent = volume_peers.monai_persistent(paths, tmp_path / "cache")
    for i, path in enumerate(paths):
        for dataset in (cached, persistent):
            np.testing.assert_allclose(np.asarray(dataset[i])[0], volume_peers.published(path), rtol=1e-4, atol=1e-5)


def test_an_epoch_is_everybody_once():
    for n in (1, 7, 64):
        batches = volume_readers.epoch(n, 3)
        assert sorted(np.concatenate(batches)) == list(range(n))
        assert max(map(len, batches)) <= volume_readers.BATCH
    assert not np.array_equal(volume_readers.epoch(64, 1)[0], volume_readers.epoch(64, 2)[0])


def test_the_floor_copies_the_rows_that_are_asked(tmp_path):
    rows_NR = np.arange(40, dtype=np.int16).reshape(8, 5)
    floor = volume_readers.Floor(tmp_path / "rows", rows_NR)
    for copy in (floor.copy, floor.copy_into):
        np.testing.assert_array_equal(copy(np.array([6, 0, 3])), rows_NR[[6, 0, 3]])


def test_the_smallest_cost_counts_and_the_first_round_does_not(monkeypatch):
    naps, now = iter([0.01, 0.05, 0.1]), [100.0]

    def nap(batches):
        now[0] += next(naps)

    monkeypatch.setattr(clocks, "time", SimpleNamespace(perf_counter=lambda: now[0], time=time.time))
    costs = volume_readers.in_turn({"nap": volume_readers.Way(nap, volumes=10)}, most=2)
    assert costs["nap"].seconds == pytest.approx(0.005)
    assert isinstance(costs["nap"], Cost)


def test_steps_are_timed_without_what_they_call_of_others():
    class Work:
        def outer(self):
            self.spin(0.1)
            self.inner()

        def inner(self):
            self.spin(0.2)

        def spin(self, seconds):
            end = time.thread_time() + seconds
            while time.thread_time() < end:
                pass

    before = Work.outer
    with steps.timed({"outer": [(Work, "outer")], "inner": [(Work, "inner")]}) as seconds:
        thread = threading.Thread(target=Work().outer)
        thread.start()
        Work().outer()
        thread.join()
    assert seconds["outer"] == pytest.approx(0.2, abs=0.02)
    assert seconds["inner"] == pytest.approx(0.4, abs=0.02)
    assert Work.outer is before


def test_every_step_of_ingest_is_seen(made, tmp_path):
    paths, _ = made
    few, many = (ingesting.link(paths, tmp_path / str(n), n) for n in (1, 2))
    rows = steps.profile(few, many, tmp_path)
    share = {row[""]: row["share"] for row in rows}
    assert set(share) == {*steps.places(), steps.REST, steps.ALL}
    assert all(value > 0 for value in share.values())
    assert sum(share.values()) == pytest.approx(2 * share[steps.ALL]) == pytest.approx(2)


def _spin(seconds, ready):
    while time.process_time() < seconds:
        pass
    ready.set()
    time.sleep(30)


def test_living_children_count_where_asked():
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    with clock() as without, clock(living=True) as cost:
        child = context.Process(target=_spin, args=(1.0, ready))
        child.start()
        ready.wait(60)
    child.terminate()
    child.join()
    assert cost.cpu >= 0.9 > without.cpu


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not tie a thread to a core")
def test_one_core_is_for_the_block_alone():
    before = os.sched_getaffinity(0)
    with one_core():
        assert len(os.sched_getaffinity(0)) == 1
        with ThreadPoolExecutor(1) as pool:
            assert len(pool.submit(os.sched_getaffinity, 0).result()) == 1
    assert os.sched_getaffinity(0) == before


def test_parts_are_seen_while_a_store_is_made(made, tmp_path):
    paths, _ = made
    ingesting.link(paths, tmp_path / "scans", 4)
    asked = ingesting.config(tmp_path / "scans", tmp_path / "store.zarr", subjects_per_shard=2)
    with ingesting.watch_parts(asked.out) as ends:
        ingest(asked)
    assert sorted(ends) == ["000000.json", "000001.json"]
    assert ends["000000.json"] < ends["000001.json"]
    assert not (asked.out / "parts").exists()


def test_the_last_line_is_json_with_what_is_promised(made, capsys):
    paths, _ = made
    volumes.main(["--quick", "--volumes", "2", "--names", "4", "8", "--folder", str(paths[0].parent)])
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert row["volumes"] == 2 and row["names"] == [4, 8]
    assert np.isfinite(row["ingest_over_inflate"])  # a difference of two runs, which of 4 files may be below 0
    promised = ("ingest_over_inflate_whole_run", "ingest_workers_speedup", "read_speedup_over_seed", "read_over_memcpy")
    for key in (*promised, "read_over_memcpy_raw"):
        assert row[key] > 0, key
    assert row["read_speedup_over_seed"] == pytest.approx(row["published_cpu_ms"] / row["read_cpu_ms"], rel=0.01)
    assert row["ingest_over_inflate"] == pytest.approx(row["ingest_cpu_ms"] / row["inflate_cpu_ms"]["isal"], rel=0.01)
