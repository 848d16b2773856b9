"""Rank discovery: a table of launchers."""

from __future__ import annotations

import pytest

from hpc.errors import ConfigError
from hpc.world import World, outside

SLURM = {
    "SLURM_STEP_ID": "0", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "8", "SLURM_NODEID": "2"
}  # fmt: skip
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "GROUP_RANK": "1"}


@pytest.mark.parametrize(
    ("environ", "world"),
    [
        ({}, World()),
        (TORCHRUN, World(3, 1, 4, 1, "torchrun")),
        (TORCHRUN | SLURM, World(3, 1, 4, 1, "torchrun")),
        ({"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}, World(1, 1, 2, 0, "env")),
        ({"RANK": "1"}, World()),
        (SLURM, World(5, 1, 8, 2, "srun")),
        ({"SLURM_JOB_ID": "9"}, World()),
        (
            {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"},
            World(1, 0, 2, 0, "mpirun"),
        ),
    ],
)
def test_world_of_each_launcher(environ, world):
    assert World.detect(environ) == world


def test_variables_that_disagree_are_refused():
    with pytest.raises(ConfigError, match="do not describe a rank"):
        World.detect(TORCHRUN | {"RANK": "4"})


def test_a_program_that_starts_ranks_is_no_rank_to_them():
    environ = TORCHRUN | SLURM | {"MASTER_ADDR": "host", "SLURM_JOB_ID": "9", "PATH": "/bin"}
    assert outside(environ) == {"SLURM_JOB_ID": "9", "PATH": "/bin"}
    assert World.detect(outside(environ)) == World()
