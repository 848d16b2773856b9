"""The process group: alone, and on two ranks."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpc.comm import Comm, Watch, of_another_rank
from hpc.errors import ConfigError, Error, InputError, of_the_user
from hpc.testing import call, launch
from hpc.world import World

FULL = (
    "x: the disk is full, or a file size limit is reached (No space left on device); free some space, then run the "
    "same command again"
)


def test_alone_needs_no_group():
    comm = Comm.join(World())
    assert [Watch(comm).any(flag) for flag in (False, True)] == [False, True]
    assert comm.is_main and comm.size == 1
    assert comm.gather("x") == ["x"]
    assert comm.any(True) and not comm.any(False)
    np.testing.assert_array_equal(comm.sum([1.0, 2.0]), [1.0, 2.0])
    with pytest.raises(InputError, match="mend me"):
        comm.on_main(_refuse)
    assert comm.on_each_node(lambda: 7) == comm.on_all(lambda: 7) == 7


def test_no_meeting_point():
    with pytest.raises(ConfigError, match=r"MASTER_ADDR and MASTER_PORT not set.*export MASTER_ADDR"):
        Comm.join(World(rank=1, size=2, launcher="srun"), environ={})


def test_two_ranks_agree(tmp_path):
    results = call(Path(__file__), "collectives", str(tmp_path), ranks=2)
    for rank, result in enumerate(results):
        assert result == {
            "rank": rank,
            "sum": [1.0, 20.0],
            "any": [True, False],
            "gather": ["rank 0", "rank 1"],
            "value": "from rank 0",
            "error": "mend me, exit code 2",
            "always": [2],  # rank 1 says so at step 2
            "seldom": [6, 14, 30],  # from step 5 on; between exchanges that are ever further apart nobody knows
            "order": ["0", "1"],
            "elsewhere": ["mend me, exit code 2"] * 2,
            "on_all": ["mend me, exit code 2", f"{FULL}, exit code 2", f"done by {rank}"],
        }


def test_a_command_that_hangs_is_ended():
    with pytest.raises(TimeoutError, match=r"not done in 1\.5 s"):
        launch("http.server", ["0", "--bind", "127.0.0.1"], timeout=1.5)


def collectives(folder: str) -> dict[str, Any]:
    """Run on every rank by test_two_ranks_agree."""
    comm = Comm.join(World.detect(os.environ))
    try:
        comm.on_main(_refuse)
        error = ""
    except Error as caught:
        error = f"{caught}, exit code {caught.exit_code}"
    seen = Path(folder) / "order"

    def note() -> list[str]:
        if comm.is_main:
            time.sleep(0.5)
        with seen.open("a") as file:
            file.write(f"{comm.rank}\n")
        return seen.read_text().split()

    comm.on_each_node(note)
    elsewhere = []
    for rank in range(2):
        try:
            comm.on_each_node(lambda rank=rank: _refuse() if comm.rank == rank else None)
        except Error as caught:
            elsewhere.append(f"{caught}, exit code {caught.exit_code}")
    on_all: list[Any] = []
    for rank, fail in enumerate((_refuse, _meet_a_full_disk)):
        try:
            comm.on_all(lambda rank=rank, fail=fail: fail() if comm.rank == rank else None)
        except Exception as caught:
            told = of_the_user(caught)
            on_all.append(f"{told}, exit code {told.exit_code}")
    on_all.append(comm.on_all(lambda: f"done by {comm.rank}"))
    always, seldom = Watch(comm, seconds=0), Watch(comm, seconds=3600)
    return {
        "rank": comm.rank,
        "sum": comm.sum([float(comm.rank), 10.0]).tolist(),
        "any": [comm.any(comm.rank == 1), comm.any(False)],
        "gather": comm.gather(f"rank {comm.rank}"),
        "value": comm.on_main(lambda: f"from rank {comm.rank}"),
        "error": error,
        "on_all": on_all,
        "always": [step for step in range(4) if always.any(comm.rank == 1 and step == 2)],
        "seldom": [step for step in range(32) if seldom.any(comm.rank == 1 and step >= 5)],
        "order": seen.read_text().split(),
        "elsewhere": elsewhere,
    }


def _refuse() -> None:
    raise InputError("mend me")


def _meet_a_full_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")


@pytest.mark.parametrize("end", ["os._exit(3)", "leave(3, together=False)"])
@pytest.mark.parametrize("wait", ["comm.sum([1.0])", "leave()"])
def test_a_rank_whose_fellow_has_ended_is_not_kept_waiting_and_has_no_traceback(tmp_path, end, wait):
    program = tmp_path / "program.py"
    program.write_text(
        "import os\nfrom hpc.comm import Comm, leave, of_another_rank\nfrom hpc.world import World\n"
        "comm = Comm.join(World.detect(os.environ))\ncomm.barrier()\n"
        f"if comm.is_main: {end}\n"
        f"try: {wait}\n"
        "except RuntimeError as error: told = of_another_rank(error); print(told); os._exit(told.exit_code)\n"
    )
    done = launch("hpc.torchrun", ["--standalone", "--nproc-per-node=2", str(program)])
    assert done.returncode in (1, 3) and "Traceback" not in done.stderr
    assert done.stdout == "" or done.stdout.startswith("lost another rank, which may have said why (")


def test_other_errors_are_not_those_of_another_rank():
    assert of_another_rank(RuntimeError("shapes do not fit")) is None
    told = of_another_rank(RuntimeError("[/x/gloo/transport/tcp/pair.cc:537] Read error [::1]:5: Reset. Typically"))
    assert "(Read error [::1]:5: Reset)" in str(told) and told.exit_code == 1
