"""Who is held out, in which order subjects come, and that their numbers do not depend on where they are held."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hpc import memory
from hpc.engine import Batches
from hpc.errors import ConfigError, InputError, Preempted
from udipdist.config import TrainConfig
from udipdist.models.layers.tokens import Patcher
from udipdist.training import feed
from udipdist.training import verb as training
from udipdist.volumes.packed import Packed, Unpacked, pack
from udipdist.volumes.store import VolumeStore

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def packed(store, tmp_path_factory) -> Packed:
    """The tiny cohort's tokens, packed."""
    volumes = VolumeStore.open(store)
    return pack(volumes, Patcher(volumes.mask, (4, 4, 4)).gather(), tmp_path_factory.mktemp("packed"))


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
    assert len(np.unique(reference)) == 24 and len(sampler.left_out(2)) == 6


def test_an_epoch_can_be_entered_in_its_middle():
    sampler = feed.Sampler(np.arange(30), Batches.split(8, 2, 2), seed=0)
    np.testing.assert_array_equal(sampler.epoch(1, 1, 2, done=16), sampler.epoch(1, 1, 2)[4:])
    assert not np.array_equal(sampler.epoch(0, 0, 2), sampler.epoch(1, 0, 2))


def read_everywhere(packed: Packed, monkeypatch) -> dict[str, feed.Subjects]:
    """Every way of reading. Where there is no GPU, a tensor on the CPU stands for its memory."""
    rows = np.flatnonzero(packed.valid)
    found = {kind: feed.Subjects(packed, rows, CPU, kind) for kind in ("auto", "host", "none")}
    with monkeypatch.context() as patched:
        patched.setattr(feed, "choose", lambda *_: ("device", "for the test"))
        found["device"] = feed.Subjects(packed, rows, CPU)
    assert [subjects.kind for subjects in found.values()] == ["host", "host", "none", "device"]
    volumes = VolumeStore.open(packed.store)
    return found | {"unpacked": feed.Subjects(Unpacked(volumes, Patcher(volumes.mask, (4, 4, 4)).gather()), rows)}


def test_wherever_they_are_held_subjects_have_the_same_bits(packed, monkeypatch):
    volumes = VolumeStore.open(packed.store)
    rows = np.flatnonzero(volumes.valid)
    batches = [rows[[5, 1, 7]], rows[[0]], rows[10:14]] * 4
    expected = [Patcher(volumes.mask, (4, 4, 4))(torch.from_numpy(volumes.normalised(batch))) for batch in batches]
    for kind, subjects in read_everywhere(packed, monkeypatch).items():
        for batch, found, wanted in zip(batches, subjects.stream(batches), expected, strict=True):
            assert torch.equal(found, wanted), kind
            assert torch.equal(subjects.batch(batch), wanted), kind


def test_an_error_while_reading_ahead_arrives(packed):
    rows = np.flatnonzero(packed.valid)
    subjects = feed.Subjects(packed, rows, CPU, "none")
    bad = np.flatnonzero(~packed.valid)
    stream = subjects.stream([rows[:2], bad, rows[:2]])
    assert len(next(stream)) == 2
    with pytest.raises(InputError, match="subject S999 could not be read"):
        next(stream)


def test_a_stream_that_is_left_reads_no_more(packed, monkeypatch):
    seen = []
    subjects = feed.Subjects(packed, np.arange(4), CPU, "none")
    monkeypatch.setattr(subjects, "_read", lambda rows: seen.append(len(rows)) or torch.zeros(1))
    stream = subjects.stream([np.arange(4)] * 50)
    next(stream)
    stream.close()
    assert len(seen) <= feed._AHEAD + 1


def test_the_first_memory_that_has_room_is_taken(monkeypatch):
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (100_000_000_000, 0))
    monkeypatch.setattr(memory, "available", lambda: 1_000_000_000_000)
    for needed, device, expected in [
        (1e9, gpu, "device"),
        (50e9, gpu, "host"),
        (1e12, gpu, "none"),
        (1e9, CPU, "host"),
    ]:
        kind, why = feed.choose("auto", int(needed), device)
        assert kind == expected and "1000.0 GB of memory" in why and ("100.0 GB free" in why) == (device is gpu)
    for asked, device, expected in [("device", CPU, "host"), ("host", gpu, "host"), ("none", gpu, "none")]:
        assert feed.choose(asked, 10, device)[0] == expected
    for asked in ("device", "host"):
        with pytest.raises(ConfigError, match=f"data.resident={asked}: .* take 2000.0 GB.*type data.resident=auto"):
            feed.choose(asked, 2_000_000_000_000, gpu)


def test_unsigned_values_survive_being_held_as_signed(monkeypatch):
    values = np.array([[0, 1, 40_000, 65_535]], np.uint16)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else CPU

    class One:
        shape, dtype, row_bytes, padding, scale = (4,), values.dtype, 8, np.zeros(0, int), np.array([[2.0, 1, 3, 4, 0]])

        def __len__(self):
            return 1

        def stored(self, rows, out):
            out[...] = values

    tokens = One()
    monkeypatch.setattr(feed, "choose", lambda *_: ("device", "for the test"))
    found = feed.Subjects(tokens, np.array([0]), device).batch(np.array([0])).cpu()
    np.testing.assert_array_equal(found, ((values * 2.0 + 1 - 3) / 4).astype(np.float32))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("kind", ["auto", "device", "host", "none"])
def test_a_gpu_gets_the_same_bits(packed, kind):
    rows = np.flatnonzero(packed.valid)
    subjects = feed.Subjects(packed, rows, torch.device("cuda", 0), kind)
    assert subjects.kind == ("device" if kind == "auto" else kind)
    batches = [rows[[5, 1, 7]], rows[[0]], rows[10:14]] * 20
    for batch, found in zip(batches, subjects.stream(batches), strict=True):
        assert found.is_cuda and torch.equal(found.cpu(), torch.from_numpy(packed.normalised(batch)))
        assert torch.equal(subjects.batch(batch), found)


def test_a_loader_with_spawned_workers_gives_every_subject_once(packed):
    rows = np.flatnonzero(packed.valid)
    sampler = feed.Sampler(rows, Batches.split(8, 2), seed=1)
    order = sampler.epoch(0, 1, 2)
    for workers in ({"num_workers": 0}, {"num_workers": 2, "multiprocessing_context": "spawn"}):
        loader = DataLoader(feed.SubjectDataset(packed), batch_sampler=order, **workers)
        for batch, found in zip(order, loader, strict=True):
            assert torch.equal(found, torch.from_numpy(packed.normalised(batch)))
    dataset = feed.SubjectDataset(packed)
    assert len(dataset) == 45 and torch.equal(dataset[3], torch.from_numpy(packed.normalised([3])[0]))


def test_the_loss_has_the_same_bits_wherever_the_subjects_are(store, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    own = Path(shutil.copytree(store, tmp_path / "store.zarr", ignore=shutil.ignore_patterns("packed")))
    model = {"patch": 4, "width": 12, "depth": 1, "heads": 2}
    keys = {"store": str(own), "epochs": 1, "global_batch": 12, "validation": 0.2, "model": model}
    curves = []
    for data in ({"resident": "device"}, {"resident": "host"}, {"resident": "none"}, {"packed": str(tmp_path / "p")}):
        run = tmp_path / "-".join([*data, *data.values()]).replace("/", "-")
        training.train(TrainConfig.parse(keys | {"run_dir": str(run), "data": data}))
        weights = run / "checkpoints" / "step-00000002" / "weights.safetensors"
        curves.append(weights.read_bytes())
    assert len(set(curves)) == 1
    assert caplog.text.count("packing the voxels") == 2  # in the store, and in the folder that was named
    assert len(list(own.glob("packed/*/voxels"))) == len(list(tmp_path.glob("p/*/*/voxels"))) == 1
    assert "each epoch leaves out 9 of 33 subjects, different ones each time: they do not fill a batch" in caplog.text


def test_a_signal_while_the_voxels_are_packed(store, tmp_path, monkeypatch):
    monkeypatch.setattr("udipdist.training.verb.StopRequest.__bool__", lambda _: True)
    keys = {"store": str(store), "run_dir": str(tmp_path / "run"), "model": {"patch": 4}}
    with pytest.raises(Preempted, match="while the voxels were packed"):
        training.train(TrainConfig.parse(keys | {"data": {"packed": str(tmp_path / "p")}}))


def test_a_subject_without_brain_is_named():
    prepared = torch.ones(3, 4, 5)
    prepared[1] = 0
    with pytest.raises(InputError, match="no brain inside the network's tokens in subject B"):
        feed.require_brain(prepared, ["A", "B", "C"], "store.zarr")
