"""Training on 2 ranks: ZeRO stages agree, resuming is exact, the number of ranks does not matter."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from hpc.testing import call, launch
from udipdist.config import EmbedConfig
from udipdist.training.embed import embed

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
def alone(store, stopped, tmp_path_factory) -> Path:
    """Runs of 1 rank; it has also gone on where 2 ranks were stopped."""
    folder = tmp_path_factory.mktemp("alone")
    call(PROGRAM, "on_other_ranks", str(store), str(folder), str(stopped[0]))
    return folder


def losses(run: Path) -> np.ndarray:
    return np.array(ranked.curve(run))


def test_curves_are_golden(stages, alone):
    # Another processor or version rounds otherwise (about 1e-7 a step, which training lets grow); a mistake in the
    # gradient, the schedule, the order of subjects or the shares of ranks moves the curve by more than 1e-2.
    golden = json.loads(ranked.GOLDEN.read_text())["losses"]
    assert len(golden) > 8 and golden[-1] < 0.9 * golden[0]
    for run in (*(stages / f"zero{zero}" for zero in range(4)), alone / "straight", alone / "accumulated"):
        np.testing.assert_allclose(losses(run), golden, rtol=1e-3)


def test_zero_stages_give_the_same_curve(stages):
    for zero in (1, 2, 3):
        np.testing.assert_allclose(losses(stages / f"zero{zero}"), losses(stages / "zero0"), rtol=1e-5)


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
        np.testing.assert_allclose(losses(alone / name), losses(stages / "zero0"), rtol=1e-4)


def test_the_best_checkpoint_has_the_lowest_validation_loss(alone):
    for name in ("worse", "straight"):
        validation = [record for record in ranked.metrics(alone / name) if record["split"] == "validation"]
        best = json.loads((alone / name / "checkpoints" / "best.json").read_text())["step"]
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
    assert len(messages[0]) == 7 and messages[0] == messages[1]
    assert messages[0][0].startswith("75 stopped by a signal; step 5 of 8 is saved")
    assert (folder / "unfinished_zero0" / "checkpoints" / "step-00000006" / "meta.json").exists()


@pytest.mark.parametrize("zero", [0, 2, 3])
def test_going_on_with_another_number_of_ranks(stopped, alone, zero):
    run = stopped[0] / f"unfinished_zero{zero}"
    assert (run / "manifest.json").exists()
    assert [start["ranks"] for start in json.loads((run / "provenance.json").read_text())["starts"]] == [2, 1]
    np.testing.assert_allclose(losses(run), losses(alone / "straight"), rtol=1e-4)


def test_a_rank_killed_in_mid_epoch_changes_nothing(store, stopped, tmp_path):
    words = ["--standalone", "--nproc-per-node=2", "--max-restarts=1", "-m", "hpc.testing"]
    arguments = json.dumps([str(store), str(tmp_path)])
    done = launch("hpc.torchrun", [*words, str(PROGRAM), "killed", arguments, str(tmp_path)])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "killed").exists()
    assert len(json.loads((tmp_path / "run" / "provenance.json").read_text())["starts"]) == 2
    straight = stopped[0] / "zero2" / "straight"
    assert ranked.metrics(tmp_path / "run") == ranked.metrics(straight)
    assert ranked.weights_hash(tmp_path / "run") == ranked.weights_hash(straight)


def test_weights_are_whole_in_every_stage(stages):
    reference = load_file(stages / "zero0" / "checkpoints" / "step-00000000" / "weights.safetensors")
    for zero in (1, 2, 3):
        state = load_file(stages / f"zero{zero}" / "checkpoints" / "step-00000000" / "weights.safetensors")
        assert state.keys() == reference.keys()
        assert all(np.array_equal(state[name], reference[name]) for name in state)


def test_a_mistake_is_one_message_on_two_ranks(store, tmp_path):
    words = [f"store={store}", f"run_dir={tmp_path / 'run'}", "model.patch=4", "model.width=24", "model.heads=5"]
    done = launch("udipdist", ["train", *words], ranks=2)
    assert done.returncode == 2 and done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if "share 1 core, so" not in line]  # as a test may have to
    assert len(lines) == 1
    assert lines[0].startswith("udipdist train (rank 0): model.heads=5: does not divide model.width=24; ")


def assert_like_the_cnn_of_one_rank(run: Path, straight: Path) -> None:
    """One curve, and the same running statistics of batch normalisation."""
    assert np.ptp(losses(straight)) > 0.1
    np.testing.assert_allclose(losses(run), losses(straight), rtol=1e-5)
    expected, found = (load_file(path / "checkpoints/step-00000008/weights.safetensors") for path in (straight, run))
    assert found.keys() == expected.keys()
    running = [key for key in expected if "running" in key]
    assert len(running) == 2 * 2 * 6
    for key in running:
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-4, atol=1e-6)
        assert found[key.rpartition(".")[0] + ".num_batches_tracked"] == 8


def test_ranks_stages_recomputing_and_going_on_do_not_change_the_cnn(stages, stopped, alone):
    for run in (stages / "cnn_zero2", stopped[0] / "cnn_zero3"):  # the first recomputed, the second gone on with 1 rank
        assert_like_the_cnn_of_one_rank(run, alone / "cnn")


@pytest.mark.cluster
def test_recomputing_does_not_change_the_cnn_in_zero_3(store, alone, tmp_path):
    call(PROGRAM, "cnn_recomputed_in_zero_3", str(store), str(tmp_path / "run"), ranks=2)
    assert_like_the_cnn_of_one_rank(tmp_path / "run", alone / "cnn")


def test_the_rehearsal_does_not_count_in_the_cnn(alone):
    untrained = load_file(alone / "cnn" / "checkpoints" / "step-00000000" / "weights.safetensors")
    counted = {key: value for key, value in untrained.items() if key.endswith(("running_mean", "batches_tracked"))}
    assert len(counted) == 2 * 2 * 6 and not any(value.any() for value in counted.values())


def test_embedding_by_the_cnn_depends_on_the_subject_alone(store, alone, tmp_path):
    tables = []
    for batch in (1, 7):
        out = tmp_path / f"{batch}.parquet"
        embed(EmbedConfig(run_dir=alone / "cnn", store=store, out=out, batch=batch, threads=1))
        tables.append(pd.read_parquet(out).iloc[:, 2:])
    assert tables[0].shape == (44, 8) and (tables[0].std() > 1e-4).all()
    np.testing.assert_allclose(tables[0], tables[1], rtol=1e-6, atol=1e-7)
