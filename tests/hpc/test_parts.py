"""plan -> part -> finish: resumable, and the same wherever `part` is called."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpc import cluster, parts, progress
from hpc.errors import Incomplete, NoSpace, OutputExists
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


class Written(Squares):
    """Says what it writes."""

    def files_of_part(self, index: int) -> list[Path]:
        return [self.place / f"{index}.txt", self.place / f"{index}.never"]

    def files_of_plan(self) -> list[Path]:
        return [self.place / "laid"]


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
    parts.fix_plan(tmp_path / "nested", {"rows": {"n": 5, "m": 1}, "ids": ["a"]})
    with pytest.raises(OutputExists, match=r"different: ids, rows.n\)"):
        parts.fix_plan(tmp_path / "nested", {"rows": {"n": 6, "m": 1}, "ids": ["b"]})


def test_a_plan_without_a_part_done_can_be_dropped(tmp_path):
    parts.fix_plan(tmp_path, {"a": 1})
    assert parts.drop_plan(tmp_path)
    parts.fix_plan(tmp_path, {"a": 2})
    parts.run_part(Squares(tmp_path), 4)
    assert not parts.drop_plan(tmp_path)
    with pytest.raises(OutputExists):
        parts.fix_plan(tmp_path, {"a": 1})


def test_a_record_says_what_a_part_wrote(tmp_path):
    parts.run(Written(tmp_path), "squares")
    record = json.loads(parts.marker(tmp_path, 3).read_text())
    assert record["part"] == 3 and record["facts"] == {"value": 9} and record["seconds"] >= 0 and record["host"]
    assert record["files"] == {"3.txt": {"bytes": 1, "sha256": hashlib.sha256(b"9").hexdigest()}}


@pytest.mark.parametrize("text", ["", "8", None])
def test_a_file_that_is_not_as_it_was_written_is_named_and_done_again(tmp_path, text):
    job, file = Written(tmp_path), tmp_path / "3.txt"
    parts.run(job, "squares")
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    told = {None: r"3.txt \(is missing\)", "": r"3.txt \(has 0 bytes, not 1\)", "8": r"3.txt \(other bytes\)"}[text]
    assert list(parts.damaged(job)) == [3] and list(parts.damaged(job, contents=False)) == ([] if text == "8" else [3])
    with pytest.raises(Incomplete, match=rf"1 files of 1 parts .*: {told}; do these parts again \(parts 3\)"):
        parts.finish(job)
    before = (tmp_path / "2.txt").stat().st_mtime_ns
    parts.run(job, "squares")
    assert file.read_text() == "9" and (tmp_path / "2.txt").stat().st_mtime_ns == before
    parts.finish(job)


def test_what_the_plan_wrote_is_checked(tmp_path):
    job = Written(tmp_path)
    publish_text(tmp_path / "laid", "before")
    parts.record_plan(job)
    parts.run(job, "squares")
    (tmp_path / "laid").write_text("after")
    with pytest.raises(
        Incomplete, match=r"1 files that the plan wrote .*: laid \(has 5 bytes, not 6\); .* overwrite=true"
    ):
        parts.finish(job)
    for index in range(5):
        parts.marker(tmp_path, index).unlink()
    assert parts.drop_plan(tmp_path)
    parts.record_plan(job)
    parts.run(job, "squares")


def test_leftovers_of_killed_writers_are_removed(tmp_path):
    job = Written(tmp_path)
    parts.run(job, "squares")
    ours = [".3.txt.partial-0123abcd", ".x.trash-0123abcd", f"a/b.{'0' * 32}.partial", "parts/000003.log"]
    theirs = ["x.partial", "thesis.trash", ".hidden", "app.log"]
    for name in ours + theirs:
        publish_text(tmp_path / name, "x")
    parts.finish(job)
    assert [name for name in ours + theirs if (tmp_path / name).exists()] == theirs


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_message(tmp_path, number, monkeypatch):
    def full(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Squares, "part", full)
    with pytest.raises(NoSpace, match=rf"the disk is full, .* \({os.strerror(number)}\), in part 0; free some space"):
        parts.run(Squares(tmp_path), "squares")


@pytest.mark.parametrize(
    ("rate", "text"), [(12345.6, "12,300"), (101.4, "101"), (4.5678, "4.57"), (0.01234, "0.0123"), (2.5e6, "2,500,000")]
)
def test_rates_are_readable(rate, text, monkeypatch):
    clock = iter([0.0, 1e6])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    bar = progress.Progress("scan", total=10**13, unit="variants")
    bar.done = round(rate * 1e6)
    assert f"variants ({text}/s, " in bar.line()
