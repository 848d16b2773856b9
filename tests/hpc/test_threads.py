"""Threads: as many as this process has cores for, and none that waits by spinning for long."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from unittest.mock import patch

import pytest

from hpc import threads, world
from hpc.testing import HANGS
from hpc.threads import SHORT_SPIN, prepare, share, share_work


def v1(folder: str, quota: int) -> dict[str, str]:
    """The control files of version 1."""
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": "100000\n"}


def groups(tmp_path, lines: str, files: dict[str, str]):
    """A /proc/self/cgroup of these lines, and control files."""
    table, root = tmp_path / "cgroup", tmp_path / "fs"
    table.write_text(lines)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return table, root


@pytest.mark.parametrize(
    ("lines", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/job/step\n", {"job/cpu.max": "300000 100000\n", "job/step/cpu.max": "max 100000\n"}, 3.0),
        ("0::/job/step\n", {"cpu.max": "50000 100000\n", "job/step/cpu.max": "400000 100000\n"}, 0.5),
        ("3:cpuset:/\n1:cpu,cpuacct:/box\n", v1("cpu/box", 200_000), 2.0),
        ("1:cpu:/box\n", v1("cpu", -1), None),
        ("1:cpu:/not/seen/from/inside\n0::/\n", v1("cpu", 400_000), 4.0),
        ("", {}, None),
    ],
)  # fmt: skip
def test_quotas_of_control_groups_are_found(tmp_path, lines, files, expected):
    assert world.cpu_quota(*groups(tmp_path, lines, files)) == expected


def test_no_control_groups_are_no_limit(tmp_path):
    assert world.cpu_quota(tmp_path / "missing", tmp_path) is None


@pytest.mark.parametrize(
    ("quota", "mask", "expected"), [(None, 8, 8), (1.5, 8, 1), (0.2, 8, 1), (3.9, 8, 3), (16.0, 8, 8)]
)
def test_cores_are_the_mask_within_the_quota(monkeypatch, quota, mask, expected):
    monkeypatch.setattr(world, "cpu_quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(mask)), raising=False)
    assert world.cores() == expected


@pytest.mark.parametrize(
    ("sharers", "asked", "expected"), [(1, 0, 8), (2, 0, 4), (3, 0, 2), (20, 0, 1), (1, 3, 3), (2, 6, 6)]
)
def test_a_process_gets_its_share_or_what_is_asked_for(monkeypatch, sharers, asked, expected):
    monkeypatch.setattr(threads, "cores", lambda: 8)
    assert share(sharers, asked) == expected


def test_more_threads_than_cores_are_told_of_once(monkeypatch, caplog):
    monkeypatch.setattr(threads, "cores", lambda: 2)
    monkeypatch.setattr(threads, "_warned", set())
    logging.getLogger("hpc").propagate = True
    with caplog.at_level(logging.WARNING):
        assert [share(2), share(1, 2)] == [1, 2] and caplog.text == ""
        assert [share(1, 4), share(1, 4), share(3)] == [4, 4, 1]
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
        "4 threads share 2 cores", "3 processes of 1 thread each share 2 cores",
    ]  # fmt: skip
    assert "give threads=2 or less" in caplog.text


def test_little_work_is_not_shared():
    assert share_work(8, operations=1e5, layers=10) == 1
    assert share_work(8, operations=1e9, layers=10) == 8
    assert share_work(1, operations=1e9, layers=0) == 1


def test_the_policy_is_the_users_where_he_has_one():
    for own in ({"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}):
        environ = dict(own)
        prepare(environ)
        assert {name: environ.get(name) for name in ("OMP_WAIT_POLICY", *SHORT_SPIN)} == {
            name: own.get(name) for name in ("OMP_WAIT_POLICY", *SHORT_SPIN)
        }


def test_a_quota_limits_what_libraries_start():
    environ = {"OMP_NUM_THREADS": "5"}
    with patch.object(threads, "cpu_quota", lambda: 2.0), patch.object(threads, "cores", lambda: 2):
        prepare(environ)
    assert (environ["OMP_NUM_THREADS"], environ["OPENBLAS_NUM_THREADS"]) == ("5", "2")
    environ = {}
    with patch.object(threads, "cpu_quota", lambda: None):
        prepare(environ)
    assert environ == SHORT_SPIN


PROGRAM = """
import json, os, sys
import {module}
libraries = [name for name in ("torch", "numpy") if name in sys.modules]
print(json.dumps([libraries, {{name: os.environ.get(name) for name in {names}}}]))
"""


@pytest.mark.parametrize("module", ["hpc.worker", "hpc.torchrun", "hpc.testing", "udipdist.cli", "hpc.sweep.options"])
def test_every_process_that_we_start_waits_briefly(module):
    """What a verb, a rank, a Dask worker and a trial import first sets the policy, and loads torch no earlier."""
    environ = {name: value for name, value in os.environ.items() if name not in SHORT_SPIN}
    program = PROGRAM.format(module=module, names=list(SHORT_SPIN))
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=True, timeout=HANGS)
    libraries, found = json.loads(done.stdout)
    assert "torch" not in libraries and found == SHORT_SPIN
