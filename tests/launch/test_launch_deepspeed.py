"""launch/deepspeed.sh on one node, and on two without ssh and with pdsh."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster
LAUNCH = Path(__file__).parents[2] / "launch"


@pytest.fixture
def hostfile(nodes, tmp_path) -> Path:
    """The hosts of DeepSpeed's launcher, a rank each."""
    path = tmp_path / "hosts"
    path.write_text("# two nodes\n" + "".join(f"{node.name} slots=1\n" for node in nodes))
    return path


@pytest.fixture
def port() -> str:
    """A free port of this machine; the launcher takes 29500 of itself."""
    with socket.socket() as asked:
        asked.bind(("", 0))
        return str(asked.getsockname()[1])


def test_one_node(here, trains, port):
    here.run(LAUNCH / "deepspeed.sh", *trains.words(), RANKS="2", PORT=port)
    trains.check("env")


def test_two_nodes_without_ssh(nodes, hostfile, trains):
    for started in [
        node.start(LAUNCH / "deepspeed.sh", *trains.words(), HOSTFILE=str(hostfile), NODE_RANK=str(rank))
        for rank, node in enumerate(nodes)
    ]:
        assert started.code() == 0, started.output
    trains.check("env")


def test_two_nodes_by_pdsh(here, nodes, hostfile, trains, tmp_path):
    """pdsh calls ssh; here ssh is a program that enters the node of that name."""
    if shutil.which("pdsh") is None:
        pytest.skip("there is no pdsh here; on Debian and Ubuntu: apt-get install pdsh")
    cases = "".join(f'    {node.name}) exec {" ".join(node.words(()))} bash -c "$*" ;;\n' for node in nodes)
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(
        "#!/usr/bin/env bash\nwhile [[ $1 == -* ]]; do case $1 in -o | -l) shift 2 ;; *) shift ;; esac; done\n"
        f"host=$1; shift\ncase $host in\n{cases}esac\n"
    )
    ssh.chmod(0o755)
    path = f"{ssh.parent}:{os.environ['PATH']}"
    keys = {"HOSTFILE": str(hostfile), "HEAD": nodes[0].address, "TORCH_CPP_LOG_LEVEL": "ERROR"}
    started = here.start(LAUNCH / "deepspeed.sh", *trains.words(), PATH=path, **keys)
    assert started.code() == 0, started.output
    assert "export TORCH_CPP_LOG_LEVEL=ERROR" in started.output
    trains.check("env")


def test_the_code_of_a_failed_rank_is_passed_on(here, trains, port):
    started = here.start(LAUNCH / "deepspeed.sh", *trains.words("global_batch=7"), RANKS="2", PORT=port)
    assert started.code() == 2, started.output
    assert "global_batch=7: cannot be shared by 2 ranks" in started.output
