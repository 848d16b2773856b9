"""The engine on 2 ranks and on 1: stages, fp16, offload, compile, averages, and checkpoints that go from 2 to 1 to 2.

One tiny network, trained for six steps over and over: three launches in all.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hpc.comm import Comm
from hpc.ema import Ema
from hpc.engine import Batches, Engine, Options
from hpc.errors import ConfigError, InputError
from hpc.scaling import LossScale
from hpc.testing import call
from hpc.world import World

PROGRAM = Path(__file__)
TOTAL = 8  # rows in an optimiser step
STEPS, HALF = 6, 3


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """What 2 ranks did, and the folder with their checkpoints."""
    folder = tmp_path_factory.mktemp("two")
    return folder, call(PROGRAM, "on_two_ranks", str(folder), ranks=2)[0]


@pytest.fixture(scope="module")
def there_and_back(two) -> tuple[dict[str, Any], dict[str, Any]]:
    """What 1 rank made of the checkpoints of 2, and what 2 made of its own."""
    folder = two[0]
    return call(PROGRAM, "on_one_rank", str(folder))[0], call(PROGRAM, "on_two_again", str(folder), ranks=2)[0]


def test_every_stage_has_the_same_losses(two):
    stages = two[1]["stages"]
    assert stages["0"]["losses"][-1] < 0.7 * stages["0"]["losses"][0]
    for zero in ("1", "2", "3"):
        np.testing.assert_allclose(stages[zero]["losses"], stages["0"]["losses"], rtol=1e-6)


@pytest.mark.parametrize("zero", ["0", "1", "2", "3"])
def test_going_on_gives_the_same_bits(two, zero):
    found = two[1]["stages"][zero]
    assert found["resumed"] == found["losses"][HALF:] and found["same_weights"]


@pytest.mark.parametrize("zero", ["0", "2", "3"])
def test_fp16_skips_what_overflows_and_goes_on_with_the_same_scale(two, zero):
    found = two[1]["fp16"][zero]
    assert found["skipped"] >= 2 and len(set(found["scales"])) >= 3  # it fell at once, and rose again
    assert found["resumed"] == found["losses"][HALF:] and found["resumed_scales"] == found["scales"][HALF:]
    assert found["same_weights"]
    assert found["scales"] == two[1]["fp16"]["0"]["scales"]
    np.testing.assert_allclose(found["losses"], two[1]["fp16"]["0"]["losses"], rtol=2e-3)  # half has 11 bits


def test_offloaded_states_make_the_same_steps(two):
    for zero in ("1", "3"):
        np.testing.assert_allclose(two[1]["offload"][zero], two[1]["stages"][zero]["losses"], rtol=1e-6)


def test_compiled_modules_make_the_same_steps(two):
    for zero in ("0", "2"):
        np.testing.assert_allclose(two[1]["compiled"][zero], two[1]["stages"]["0"]["losses"], rtol=1e-5)


@pytest.mark.parametrize("zero", ["0", "1", "2", "3"])
def test_average_of_the_weights(two, there_and_back, zero):
    found = two[1]["stages"][zero]
    assert found["average_error"] < 1e-6 and found["average_moved"] > 1e-3
    assert found["applied_error"] < 1e-6 and found["put_back"]
    assert there_and_back[0][zero]["average_error"] < 1e-6
    assert there_and_back[0][zero]["average_refused"].startswith(
        "average of the weights: 0.weight is (3, 3), not (24, 13)"
    )


@pytest.mark.parametrize("zero", ["0", "1", "2", "3"])
def test_from_two_ranks_to_one_and_back(two, there_and_back, zero):
    straight = two[1]["stages"][zero]["losses"]
    one, again = (results[zero] for results in there_and_back)
    np.testing.assert_allclose(one["losses"], straight[HALF:], rtol=1e-5)
    np.testing.assert_allclose(again["losses"], straight[HALF + 1 :], rtol=1e-5)
    assert one["rates"] == two[1]["rates"][HALF:]
    assert one["random"] == one["random_again"]  # anew on another number of ranks, and the same each time
    assert one["made"] == ([] if zero == "0" else ["universal"])


def test_what_a_machine_lacks_is_said_before_anything_starts(two):
    # This file runs on machines without a GPU, where nothing may be compiled at start-up
    message = two[1]["refused"]["nvme"]
    assert message.startswith("engine.offload=nvme: DeepSpeed's async_io cannot be used: it is not built")
    assert message.endswith("type engine.offload=cpu")
    assert two[1]["refused"]["compile"].startswith("engine.compile=true: needs a C++ compiler; install g++")


def test_no_code_of_a_checkpoint_is_run(there_and_back):
    for message in there_and_back[0]["foreign"]:
        assert "Weights only load failed" in message


def test_a_scale_that_never_fits_is_an_error():
    scale = LossScale(scale=4.0, window=2)
    scale.update(False)
    scale.update(False)
    assert scale.state() == {"scale": 8.0, "clean": 0}
    for _ in range(17):
        scale.update(True)
    assert scale.scale == 2.0**-14
    with pytest.raises(ValueError, match=r"not finite in fp16 at any loss scale; type engine\.precision=bf16"):
        scale.update(True)


# ------------------------------------------------------------------------------------ what runs on the ranks


def on_two_ranks(folder: str) -> dict[str, Any]:
    """Every stage straight and resumed; fp16; offload; compile; and what is refused."""
    comm, place = Comm.join(World.detect(os.environ)), Path(folder)
    results: dict[str, Any] = {"stages": {}, "fp16": {}, "offload": {}, "compiled": {}, "refused": {}}
    for zero in range(4):
        results["stages"][zero] = _straight_and_resumed(comm, zero, place / f"zero{zero}")
        results["rates"] = [_rate(step) * 0.01 for step in range(STEPS)]
    for zero in (0, 2, 3):
        results["fp16"][zero] = _in_fp16(comm, zero, place / f"half{zero}")
    for zero in (1, 3):
        results["offload"][zero] = _train(_engine(comm, zero, offload="cpu"), 0, STEPS)
    for zero in (0, 2):
        results["compiled"][zero] = _train(_engine(comm, zero, compiler="eager"), 0, STEPS)
    for name, keys in {"nvme": {"offload": "nvme", "nvme_path": place}, "compile": {"compiler": "inductor"}}.items():
        path = os.environ["PATH"]
        os.environ["PATH"] = ""
        try:
            _engine(comm, 3, **keys)
        except ConfigError as error:
            results["refused"][name] = str(error)
        os.environ["PATH"] = path
    return results


def on_one_rank(folder: str) -> dict[str, Any]:
    """Go on from what 2 ranks left in every stage, in micro-batches of half the size; refuse what is not a state."""
    comm, results = Comm(World()), {}
    foreign = Path(folder) / "foreign" / "state"
    foreign.mkdir(parents=True)
    for rank in range(2):
        torch.save({"optimizer_state_dict": LossScale()}, foreign / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    torch.save({"module": LossScale()}, foreign / "mp_rank_00_model_states.pt")
    results["foreign"] = []
    for zero in (0, 2):
        try:
            _engine(comm, zero).load(foreign.parent)
            results["foreign"].append("loaded")
        except InputError as error:
            results["foreign"].append(str(error))
    for zero in range(4):
        place = Path(folder) / f"zero{zero}"
        randoms = []
        for _ in range(2):
            torch.manual_seed(5)
            engine = _engine(comm, zero, accumulation=2)
            engine.load(place / "three")
            randoms.append(torch.rand(3).tolist())
        ema = Ema(engine, 0.9)
        saved = torch.load(place / "average.pt", weights_only=True)
        ema.load(saved, steps=STEPS)
        error = max(float((value - saved[name]).abs().max()) for name, value in ema.weights().items())
        try:
            ema.load(saved | {"0.weight": torch.zeros(3, 3)}, steps=STEPS)
            refused = ""
        except ValueError as caught:
            refused = str(caught)
        rates, losses = [], []
        for step in range(HALF, STEPS):
            rates.append(engine.rate)
            losses += _train(engine, step, step + 1)
            if step == HALF:
                engine.save(place / "four")
        made = sorted(p.name for p in (place / "three").iterdir() if "universal" in p.name)
        results[zero] = {
            "losses": losses, "rates": rates, "random": randoms[0], "random_again": randoms[1], "made": made,
            "average_error": error, "average_refused": refused,
        }  # fmt: skip
    return results


def on_two_again(folder: str) -> dict[str, Any]:
    """Go on from what 1 rank left."""
    comm, results = Comm.join(World.detect(os.environ)), {}
    for zero in range(4):
        engine = _engine(comm, zero)
        engine.load(Path(folder) / f"zero{zero}" / "four")
        results[zero] = {"losses": _train(engine, HALF + 1, STEPS)}
    return results


def _straight_and_resumed(comm: Comm, zero: int, place: Path) -> dict[str, Any]:
    engine = _engine(comm, zero)
    ema, expected = Ema(engine, 0.9), engine.weights()
    first, losses = {name: value.clone() for name, value in expected.items()}, []
    for step in range(STEPS):
        losses += _train(engine, step, step + 1)
        ema.update()
        keep = min(0.9, (2 + step) / (11 + step))
        for name, value in engine.weights().items():
            expected[name] = keep * expected[name] + (1 - keep) * value
        if step == HALF - 1:
            engine.save(place / "three")
    last, average = engine.weights(), ema.weights()
    rows = _rows(0)[0]
    with ema.applied(), torch.no_grad():
        applied = engine(rows)
    if comm.is_main:
        torch.save(average, place / "average.pt")
        other = _network()
        other.load_state_dict(average)
        applied_error = float((other(rows) - applied).abs().max())
    else:
        applied_error = 0.0
    put_back = all(torch.equal(value, last[name]) for name, value in engine.weights().items())
    again = _engine(comm, zero)
    again.load(place / "three")
    return {
        "losses": losses,
        "resumed": _train(again, HALF, STEPS),
        "same_weights": all(torch.equal(value, last[name]) for name, value in again.weights().items()),
        "average_error": max((float((average[n] - expected[n]).abs().max()) for n in average), default=0.0),
        "average_moved": max((float((average[n] - first[n]).abs().max()) for n in average), default=1.0),
        "applied_error": applied_error,
        "put_back": put_back,
    }


def _in_fp16(comm: Comm, zero: int, place: Path) -> dict[str, Any]:
    def train(engine: Engine, start: int, stop: int) -> tuple[list[float], list[float]]:
        pairs = [(_train(engine, step, step + 1)[0], engine.loss_scale) for step in range(start, stop)]
        return [loss for loss, _ in pairs], [scale for _, scale in pairs]

    engine = _engine(comm, zero, precision="fp16")
    engine._scale.scale, engine._scale.window = 2.0**19, 2
    losses, scales = train(engine, 0, HALF)
    engine.save(place)
    more = train(engine, HALF, STEPS)
    last = engine.weights()
    again = _engine(comm, zero, precision="fp16")
    again._scale.window = 2
    again.load(place)
    resumed, resumed_scales = train(again, HALF, STEPS)
    return {
        "losses": losses + more[0], "scales": scales + more[1], "skipped": engine.skipped,
        "resumed": resumed, "resumed_scales": resumed_scales,
        "same_weights": all(torch.equal(value, last[name]) for name, value in again.weights().items()),
    }  # fmt: skip


def _engine(comm: Comm, zero: int, accumulation: int = 1, **keys: Any) -> Engine:
    network = _network()
    optimiser = torch.optim.AdamW(network.parameters(), 0.01, fused=True)
    batches = Batches(TOTAL, TOTAL // comm.size // accumulation, accumulation)
    return Engine(network, optimiser, _rate, Options(batches, zero=zero, clip=1.0, **keys), comm)


def _network() -> nn.Module:
    """Odd sizes, so that no weight can be shared by two ranks without padding."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(13, 24), nn.GELU(), nn.LayerNorm(24), nn.Linear(24, 7))


def _rate(step: int) -> float:
    return 1 / (1 + 0.1 * step)


def _rows(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.randn(TOTAL, 13, generator=torch.Generator().manual_seed(step % 2))
    return rows, rows[:, :7].sin()


def _train(engine: Engine, start: int, stop: int) -> list[float]:
    """The losses over all ranks of some steps."""
    batches, comm = engine.options.batches, engine.comm

    def losses(step: int) -> Iterator[torch.Tensor]:
        rows, targets = _rows(step)
        for micro in range(batches.accumulation):
            first = (micro * comm.size + comm.rank) * batches.micro
            own = slice(first, first + batches.micro)
            yield (engine(rows[own]).float() - targets[own]).square().mean()

    means = [float(engine.step(losses(step))) for step in range(start, stop)]
    assert all(math.isfinite(mean) for mean in means)
    return [float(value) / comm.size for value in comm.sum(means)]
