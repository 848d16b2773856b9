"""launch/torchrun.sh on one node and on two: losses, signals, failures, exit codes."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import psutil
import pytest

LAUNCH = Path(__file__).parents[2] / "launch"
FOREVER = "epochs=100000"


def torchrun(nodes, words, **variables):
    """launch/torchrun.sh, the same line on both nodes."""
    shared = {"RANKS": "1", "NODES": "2", "HEAD": nodes[0].name, "RESTARTS": "0"} | variables
    return [node.start(LAUNCH / "torchrun.sh", *words, **shared) for node in nodes]


def processes(started, *words: str) -> list[psutil.Process]:
    """The processes under `started` whose command line holds all of `words`."""
    family = psutil.Process(started.process.pid).children(recursive=True)
    return [process for process in family if set(words) <= set(process.cmdline())]


def test_two_nodes_give_the_losses_of_one(nodes, trains, one_node):
    for started in torchrun(nodes, trains.words()):
        assert started.code() == 0, started.output
    trains.check("torchrun")
    assert trains.losses(one_node)[-1] < 0.9 * trains.losses(one_node)[0]


def test_a_signal_to_one_node_saves_on_both(nodes, trains):
    started = torchrun(nodes, trains.words(FOREVER), RESTARTS="3")
    trains.wait_for_steps(*started)
    processes(started[1], "hpc.torchrun")[0].send_signal(signal.SIGUSR1)
    assert [one.code() for one in started] == [75, 75], [one.output for one in started]
    saved = trains.last()["step"]
    assert saved > 0 and f"step {saved} of" in started[0].output


def test_a_killed_rank_ends_both_nodes(nodes, trains):
    started = torchrun(nodes, trains.words(FOREVER))
    trains.wait_for_steps(*started)
    processes(started[1], "udipdist", "train")[-1].kill()
    assert all(one.code() not in (0, 75) for one in started), [one.output for one in started]


def test_a_mistake_is_said_once_and_not_tried_again(here, tmp_path):
    words = [LAUNCH / "torchrun.sh", f"store={tmp_path / 'none.zarr'}", f"run_dir={tmp_path / 'run'}"]
    started = here.start(*words, RANKS="2", RESTARTS="3")
    assert started.code(60) == 2
    assert len(re.findall(r"^udipdist train \(rank \d\): .*none.zarr", started.output, re.MULTILINE)) == 1
    assert "Traceback" not in started.output


def test_a_signal_before_the_ranks_listen_asks_for_another_start(here, tmp_path):
    """Nothing is saved, and nothing is lost: 75, as after any other request to stop."""
    program = tmp_path / "deaf.py"
    program.write_text("import os, signal\nos.kill(os.getppid(), signal.SIGUSR1)\nsignal.pause()\n")
    words = ["-m", "hpc.torchrun", "--standalone", "--nproc-per-node=1", "--max-restarts=3", program]
    started = here.start(sys.executable, *words)
    assert started.code(60) == 75, started.output


@pytest.mark.parametrize(
    ("script", "variables", "message"),
    [
        ("torchrun.sh", {}, "NODES=2 HEAD=host1 launch/torchrun.sh"),
        ("torchrun.sh train.yaml", {"NODES": "2"}, "NODES=2 needs HEAD=HOST"),
        (
            "torchrun.sh train.yaml",
            {"UDIPDIST_SITE": "/nowhere.sh"},
            "UDIPDIST_SITE=/nowhere.sh: there is no such file",
        ),
        ("torchrun.sh train.yaml", {"INTERFACE": "lo0"}, "has no such network"),
        ("deepspeed.sh", {}, "HOSTFILE=hosts launch/deepspeed.sh"),
        ("deepspeed.sh train.yaml", {"HOSTFILE": "/nowhere"}, "HOSTFILE=/nowhere: there is no such file"),
        ("task.sh train.yaml", {}, "is for srun"),
    ],
)
def test_what_the_scripts_refuse(here, script, variables, message):
    started = here.start(LAUNCH / script.split()[0], *script.split()[1:], **variables)
    assert started.code() == 2
    assert message in started.output


@pytest.mark.cluster
def test_nodes_whose_names_stand_for_themselves_only(nodes, trains, tmp_path):
    """As on Debian: /etc/hosts gives a node's own name 127.0.1.1. The site file says what the network is."""
    site = tmp_path / "site.sh"
    site.write_text("INTERFACE=eth0\n")
    started = []
    for rank, node in enumerate(nodes):
        hosts = tmp_path / f"hosts{rank}"
        hosts.write_text(f"127.0.0.1 localhost\n127.0.1.1 {node.name}\n")
        words = ["unshare", "--mount", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh"]
        keys = {"NODES": "2", "HEAD": nodes[0].address, "NODE_RANK": str(rank), "RANKS": "1"}
        started.append(node.start(*words, LAUNCH / "torchrun.sh", *trains.words(), UDIPDIST_SITE=str(site), **keys))
    for one in started:
        assert one.code() == 0, one.output
    trains.check("torchrun")
