"""The benchmark of maps: both ways give the same t, and streaming holds less. Not how fast."""

from __future__ import annotations

import json
import types

import numpy as np
import pytest

from benchmarks import interpret

SUBJECTS = 60


@pytest.fixture(scope="module")
def costs() -> dict[str, dict]:
    return {way: interpret.one(way, SUBJECTS, 4) for way in interpret.WAYS}


def test_both_ways_give_the_same_t(costs):
    streamed, published = (np.array(costs[way]["t"]) for way in interpret.WAYS)
    assert len(streamed) > 50 and np.abs(published).max() > 1
    np.testing.assert_allclose(streamed, published, rtol=5e-3, atol=5e-3)


def test_the_last_line_is_json_with_what_is_promised(costs, capsys, monkeypatch):
    monkeypatch.setattr(interpret, "_apart", lambda way, n, mm: costs[way] | {"subjects": n})
    interpret.main(["--quick", "--subjects", str(SUBJECTS)])
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 0 < row["memory_over_published"] < 0.5
    assert row["subjects_per_s"] == pytest.approx(SUBJECTS / costs["streamed"]["seconds"], rel=1e-3)
    assert row["memory_published_1mm_gb"] == pytest.approx(28.9, abs=0.1)


def test_each_way_is_a_process_of_its_own(monkeypatch):
    asked = []

    def run(command, **keys):
        asked.append(command[1:])
        return types.SimpleNamespace(stdout='noise\n{"bytes": 1}\n')

    monkeypatch.setattr(interpret.subprocess, "run", run)
    assert interpret._apart("streamed", 5, 2) == {"bytes": 1}
    assert asked == [["-m", "benchmarks.interpret", "--way", "streamed", "--subjects", "5", "--mm", "2"]]
