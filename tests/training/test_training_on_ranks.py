"""Training on 2 ranks: ZeRO stages agree, resuming is exact, the number of ranks does not matter."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from hpc.testing import call, launch

PROGRAM = Path(__file__).parent / "ranked.py"
spec = importlib.util.spec_from_file_location("ranked_here", PROGRAM)
ranked = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ranked)


@pytest.fixture(scope="module")
def stages(store, tmp_path_factory) -> Path:
    """Runs of 2 ranks in ZeRO 0, 1, 2, 3."""
    folder = tmp_path_factory.mktemp("stages")
    call(PROGRAM, "zero_stages", str(store), str(folder), ranks=2)
    return folder


@pytest.fixture(scope="module")
def stopped(store, tmp_path_factory) -> tuple[Path, list[list[str]]]:
    """Runs of 2 ranks, some stopped by a signal; and the messages on each rank."""
    folder = tmp_path_factory.mktemp("stopped")
    return folder, call(PROGRAM, "interrupted", str(store), str(folder), ranks=2)


@pytest.fixture(scope="module")
def alone(store, stopped, tmp_path_factory) -> tuple[Path, str]:
    """Runs of 1 rank, and the refusal to go on from a sharded optimiser of 2."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, call(PROGRAM, "on_other_ranks", str(store), str(folder), str(stopped[0]))[0]


def losses(run: Path) -> np.ndarray:
    return np.array([record["loss"] for record in ranked.metrics(run)])


def test_zero_stages_give_the_same_curve(stages):
    reference = losses(stages / "zero0")
    assert len(reference) > 8 and reference[-1] < 0.9 * reference[0]
    for zero in (1, 2, 3):
        np.testing.assert_allclose(losses(stages / f"zero{zero}"), reference, rtol=1e-5)


def test_recomputed_blocks_give_the_same_curve(stages):
    np.testing.assert_allclose(losses(stages / "recomputed"), losses(stages / "zero0"), rtol=1e-5)


def test_bf16_stays_near_float32_in_every_stage(stages):
    # bf16 has 8 bits of mantissa, so a loss may move by some 2^-8; DeepSpeed's own bf16 mode at stage 0 moves by more.
    for zero in (0, 2):
        found = losses(stages / f"bf16_zero{zero}")
        np.testing.assert_allclose(found, losses(stages / "zero0"), rtol=2**-7)
        assert not np.array_equal(found, losses(stages / "zero0"))


def test_one_rank_gives_the_curve_of_two(stages, alone):
    for name in ("straight", "accumulated"):
        np.testing.assert_allclose(losses(alone[0] / name), losses(stages / "zero0"), rtol=1e-4)


def test_the_best_checkpoint_has_the_lowest_validation_loss(alone):
    for name in ("worse", "straight"):
        validation = [record for record in ranked.metrics(alone[0] / name) if record["split"] == "validation"]
        best = json.loads((alone[0] / name / "checkpoints" / "best.json").read_text())["step"]
        assert best == min(validation, key=lambda record: record["loss"])["step"]
        assert (best == 0) == (name == "worse")


@pytest.mark.parametrize("zero", [0, 2, 3])
def test_resume_equals_a_run_never_interrupted(stopped, zero):
    folder = stopped[0] / f"zero{zero}"
    assert ranked.metrics(folder / "stopped") == ranked.metrics(folder / "straight")
    assert ranked.weights_hash(folder / "stopped") == ranked.weights_hash(folder / "straight")


def test_a_stop_between_two_checkpoints_loses_nothing(stopped):
    folder, messages = stopped
    assert messages[0][3].startswith("75 stopped by a signal; step 4 of 8 is saved")
    assert (folder / "between" / "checkpoints" / "step-00000004" / "meta.json").exists()
    assert ranked.metrics(folder / "between") == ranked.metrics(folder / "zero0" / "straight")
    assert ranked.weights_hash(folder / "between") == ranked.weights_hash(folder / "zero0" / "straight")


def test_a_signal_on_one_rank_stops_all_and_saves(stopped):
    folder, messages = stopped
    assert len(messages[0]) == 6 and messages[0] == messages[1]
    assert messages[0][0].startswith("75 stopped by a signal; step 5 of 8 is saved")
    assert (folder / "unfinished_zero0" / "checkpoints" / "step-00000006" / "meta.json").exists()


def test_going_on_with_another_number_of_ranks(stopped, stages, alone):
    folder, refusal = alone
    assert (stopped[0] / "unfinished_zero0" / "manifest.json").exists()
    np.testing.assert_allclose(losses(stopped[0] / "unfinished_zero0"), losses(stages / "zero0"), rtol=1e-4)
    np.testing.assert_allclose(losses(stopped[0] / "unfinished_zero0"), losses(folder / "straight"), rtol=1e-4)
    assert "was written by 2 ranks with engine.zero=2" in refusal and "start 2 ranks to go on" in refusal


def test_weights_are_whole_in_every_stage(stages):
    reference = load_file(stages / "zero0" / "checkpoints" / "step-00000000" / "weights.safetensors")
    for zero in (1, 2, 3):
        state = load_file(stages / f"zero{zero}" / "checkpoints" / "step-00000000" / "weights.safetensors")
        assert state.keys() == reference.keys()
        assert all(np.array_equal(state[name], reference[name]) for name in state)


def test_a_mistake_is_one_message_on_two_ranks(store, tmp_path):
    words = [f"store={store}", f"run_dir={tmp_path / 'run'}", "model.patch=4", "model.width=24", "model.heads=5"]
    done = launch("udipdist", ["train", *words], ranks=2, timeout=60)
    assert done.returncode == 2 and done.stdout == ""
    message = "udipdist train (rank 0): model.heads=5: does not divide model.width=24; "
    assert done.stderr.startswith(message) and len(done.stderr.splitlines()) == 1
