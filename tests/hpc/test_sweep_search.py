"""Searches that go on: what earlier runs of a sweep have found is read from files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.search import Searcher

from hpc.sweep import SearchConfig, Trial, outcomes, parse_space
from hpc.sweep.search import Proposals, scheduler
from hpc.sweep.stops import Stops
from hpc.sweep.table import Table
from hpc.sweep.trials import best_of, end, fail

SPACE = parse_space({"x": {"uniform": [0, 10]}, "set": {"choice": {"a": {"y": 1}, "b": {"y": 2}}}})


def tree_of(place: Path, number: int) -> dict:
    """A trial as Tune carries it."""
    folder = place / "trials" / f"t{number}"
    return {"name": folder.name, "number": number, "configuration": "c", "values": {}, "folder": folder, "seed": 1}


def finish(tree: dict, *scores: float) -> None:
    """What a trial leaves that has reported `scores`."""
    trial = Trial(**{**tree, "folder": Path(tree["folder"])})
    trial.folder.mkdir(parents=True, exist_ok=True)
    trial.write()
    (trial.folder / "reports.jsonl").write_text("".join(json.dumps({"score": score}) + "\n" for score in scores))
    end(trial.folder, "finished")


def proposals(place: Path, seeds=(1, 2), **keys) -> Proposals:
    search = SearchConfig(algorithm="optuna", **{"samples": 24, "startup": 3} | keys)
    return Proposals(place, SPACE, list(seeds), search, "score", "max")


def test_optuna_finds_the_better_side_across_restarts(tmp_path):
    """The score is x: of what is proposed after the draws, most lies above the middle; each start is a new object."""
    values = []
    for start in range(6):
        proposer = proposals(tmp_path)
        assert proposer.left == 2 * (24 - 4 * start)
        for number in range(4):
            pair = [proposer.suggest(f"{start}-{number}-{seed}")["trial"] for seed in (1, 2)]
            assert [tree["seed"] for tree in pair] == [1, 2] and pair[0]["values"] == pair[1]["values"]
            for tree in pair:
                finish(tree, -1.0, tree["values"]["x"], -0.5)
            for seed in (1, 2):
                proposer.on_trial_complete(f"{start}-{number}-{seed}", {"score": -0.5})
            values.append(pair[0]["values"]["x"])
    assert proposals(tmp_path).suggest("more") == Searcher.FINISHED
    assert len(set(values)) > 16 and sum(values[8:]) / 16 > 6.0  # 5 where it learns nothing
    told = [trial.value for trial in proposals(tmp_path)._study.trials]
    assert told == pytest.approx(values)  # the best report, not the last; the mean over the seeds


def test_optuna_runs_first_what_was_left_and_forgets_a_line_cut_off(tmp_path):
    first = proposals(tmp_path)
    trees = [first.suggest(str(number))["trial"] for number in range(3)]
    finish(trees[0], 1.0)
    with (tmp_path / "ray" / "proposals.jsonl").open("a") as file:
        file.write('{"x": 3.')
    again = proposals(tmp_path)
    assert again.left == 47
    assert [again.suggest(str(number))["trial"]["name"] for number in range(2)] == [t["name"] for t in trees[1:]]


def test_halving_knows_the_trials_that_ended(tmp_path):
    """Of four trials that ended, the rung of the first report keeps the best third: 3 goes on, 1 does not."""
    for number, score in enumerate((1.0, 2.0, 3.0, 4.0)):
        finish(tree_of(tmp_path, number), score)
    search = SearchConfig(algorithm="asha")
    asha = scheduler(search, SPACE, "score", "max", outcomes(tmp_path, "score", "max"))
    assert isinstance(asha, AsyncHyperBandScheduler)
    bracket = asha._brackets[0]
    actions = {}
    for name, value in {"low": 1.0, "high": 5.0}.items():
        trial = type("T", (), {"trial_id": name})()
        actions[name] = bracket.on_result(trial, 1, value)
    assert actions == {"low": "STOP", "high": "CONTINUE"}


def test_outcomes_by_files(tmp_path):
    trees = [tree_of(tmp_path, n) for n in range(2)]
    finish(trees[0], 1.0, float("nan"), 0.5)
    finish(trees[1], 2.0)
    (trees[1]["folder"] / "ended.json").unlink()
    fail(trees[1]["folder"], "KeyError", "lost", "run")
    done, failed = outcomes(tmp_path, "score", "max")
    assert (done.state, done.metrics, done.best) == ("finished", {"score": 0.5}, {"score": 1.0})
    assert (failed.state, failed.error, failed.log.name) == ("failed", "lost", "log.txt")
    assert best_of([{"score": 3.0}, {"score": 1.0}, {}], "score", "min") == {"score": 1.0}


def test_a_trial_whose_process_died_too_often_has_a_message(tmp_path):
    table = Table(tmp_path, 1, 0, ["epoch"], "score", "max", "run", Stops())
    table.open()
    folder = tmp_path / "trials" / "t0"

    class Died:
        run_metadata = type("M", (), {"num_failures": 4})

        def __str__(self):
            return "t0"

    finish(tree_of(tmp_path, 0), 1.0)
    (folder / "ended.json").unlink()
    table.on_trial_error(iteration=1, trials=[], trial=Died())
    (outcome,) = outcomes(tmp_path, "score", "max")
    assert outcome.state == "failed" and "ended without a word 4 times" in outcome.error
    assert "1 of 1 trials are over, 0 run, 1 failed" in table.line()
