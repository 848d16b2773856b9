"""udipdist inspect on runs of train: finished, stopped, damaged; weights are looked at, never loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from udipdist.inspection.verb import look


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_a_whole_run(trained, store):
    for contents in (False, True):
        found = look(trained, contents)
        assert (found.kind, found.state, found.problems) == ("training run", "complete", [])
    assert (found.facts["epoch"], found.facts["starts"], found.made["stage"]) == (2, 1, "train")
    assert found.facts["step"] == json.loads((trained / "checkpoints" / "last.json").read_text())["step"]
    assert set(found.facts["validation"]) == {"loss", "ssim", "psnr"}
    (one,) = found.inputs
    assert (one["key"], one["path"], one["state"]) == ("store", str(store), "unchanged")
    assert {inside.kind for inside in found.inside} == {"checkpoint"} and len(found.inside) == 3


def test_a_checkpoint(trained):
    last = trained / "checkpoints" / json.loads((trained / "checkpoints" / "last.json").read_text())["folder"]
    found = look(last, contents=True)
    assert (found.kind, found.state, found.facts["epoch"]) == ("checkpoint", "complete", 2)
    assert "last" in found.facts["pointed_at_by"] and found.facts["run"] == str(trained)
    assert found.facts["numbers"] > look(trained, contents=False).facts["parameters"] > 1000  # buffers too
    assert look(last.parent, contents=False).kind == "checkpoints of a training run"


def test_a_run_that_goes_on_or_was_stopped(run):
    (run / "manifest.json").unlink()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99')
    found = look(run, contents=True)
    assert (found.kind, found.state) == ("training run", "unfinished")
    assert found.parts == {"done": 2, "total": 2, "unit": "epochs"} and "same command continues" in found.problems[0]
    assert found.made["command"][1] == "train" and found.inputs[0]["key"] == "store"
    assert "cut off" in found.notes[0]


DAMAGES = [
    (lambda run, last: (last / "weights.safetensors").write_bytes(b""), "weights.safetensors has 0 bytes"),
    (lambda run, last: (last / "meta.json").unlink(), "meta.json, which is written last, is missing"),
    (lambda run, last: next((last / "state").iterdir()).unlink(), "is missing"),
    (lambda run, last: shutil.rmtree(last), "last.json points to"),
    (lambda run, last: (run / "metrics.jsonl").write_text("no JSON\n"), "line 1 of metrics.jsonl is not JSON"),
    (lambda run, last: (run / "provenance.json").write_text("{}"), "provenance.json is damaged"),
    (lambda run, last: (run / "reconstructions.npz").unlink(), "reconstructions.npz is missing"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=[message for _, message in DAMAGES])
def test_damage_is_told(damage, message, run):
    last = run / "checkpoints" / json.loads((run / "checkpoints" / "last.json").read_text())["folder"]
    damage(run, last)
    found = look(run, contents=False)
    assert found.state == "damaged" and any(message in problem for problem in found.problems), found.problems


def test_optimiser_states_are_never_unpickled(run):
    """Of other bytes the SHA-256 tells; what they would do stays undone."""
    state = next((run / "checkpoints").glob("step-*/state/*"))
    program = b"cos\nsystem\n(S'touch unpickled'\ntR."
    state.write_bytes(program.ljust(state.stat().st_size, b" "))
    found = look(run, contents=True)
    assert found.state == "damaged" and "other bytes than were written (sha256)" in " ".join(found.problems)
    assert not Path("unpickled").exists()
