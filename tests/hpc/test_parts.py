"""plan -> part -> finish: resumable, and the same wherever `part` is called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from hpc import cluster, parts
from hpc.errors import Incomplete, OutputExists
from hpc.files import publish_text


@dataclass
class Squares:
    """Writes i*i; `broken` names a part that fails."""

    place: Path
    n_parts: int = 5
    unit: str = "numbers"
    broken: int = -1

    def part(self, index: int) -> dict:
        if index == self.broken:
            raise RuntimeError("broken")
        publish_text(self.place / f"{index}.txt", str(index**2))
        return {"value": index**2}

    def size_of_part(self, index: int) -> int:
        return 1


@pytest.mark.parametrize("workers", [0, 2])
def test_every_part_is_done(tmp_path, workers):
    facts = parts.run(Squares(tmp_path), "squares", cluster.runner(workers))
    assert [fact["value"] for fact in facts] == [0, 1, 4, 9, 16]


def test_going_on_after_a_failure_redoes_nothing(tmp_path):
    with pytest.raises(RuntimeError):
        parts.run(Squares(tmp_path, broken=3), "squares")
    assert parts.pending(Squares(tmp_path)) == [3, 4]
    with pytest.raises(Incomplete, match="2 of 5 parts are not done"):
        parts.finish(Squares(tmp_path))
    before = (tmp_path / "0.txt").stat().st_mtime_ns
    parts.run(Squares(tmp_path), "squares")
    assert (tmp_path / "0.txt").stat().st_mtime_ns == before
    assert parts.pending(Squares(tmp_path)) == []


def test_error_on_a_worker_reaches_the_caller(tmp_path):
    with pytest.raises(RuntimeError, match="broken"):
        parts.run(Squares(tmp_path, broken=2), "squares", cluster.runner(2))


def test_another_plan_is_refused(tmp_path):
    parts.fix_plan(tmp_path, {"rows": 5, "ids": ["a"]})
    parts.fix_plan(tmp_path, {"rows": 5, "ids": ["a"]})
    with pytest.raises(OutputExists, match="different: rows"):
        parts.fix_plan(tmp_path, {"rows": 6, "ids": ["a"]})


def test_a_plan_without_a_part_done_can_be_dropped(tmp_path):
    parts.fix_plan(tmp_path, {"a": 1})
    assert parts.drop_plan(tmp_path)
    parts.fix_plan(tmp_path, {"a": 2})
    parts.run_part(Squares(tmp_path), 4)
    assert not parts.drop_plan(tmp_path)
    with pytest.raises(OutputExists):
        parts.fix_plan(tmp_path, {"a": 1})
