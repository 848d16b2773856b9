"""Machines in miniature: two nodes (name spaces of the kernel) with names, addresses and processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest

from hpc.testing import HANGS

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
KEYS = ["epochs=2", "global_batch=8", "validation=0.2", "seed=3", "model.patch=4", "model.width=24", "model.depth=2"]
KEYS.append("threads=1")  # two nodes share the cores of one machine, and do not know it
_SPACES = ("--net", "--uts", "--mount", "--pid")
_QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}


@dataclass
class Started:
    """A command that runs, its output so far in `log`."""

    process: subprocess.Popen
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def code(self, timeout: float = HANGS) -> int:
        """Its exit code, once it has ended."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.process.args}: not done in {timeout} s\n{self.output}") from None


@dataclass
class Here:
    """This machine."""

    folder: Path
    started: list[Started] = field(default_factory=list)

    def start(self, *words: str | Path, **variables: str) -> Started:
        """Start a command in the root of the repository, with `variables` in its environment."""
        log = self.folder / f"{type(self).__name__}-{len(self.started)}-{time.monotonic_ns()}.log"
        environ = {**os.environ, "UDIPDIST_PYTHON": sys.executable, **variables}
        with log.open("w") as file:
            options = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": subprocess.STDOUT, "cwd": ROOT}
            process = subprocess.Popen(self.words(words), env=environ, start_new_session=True, **options)
        self.started.append(Started(process, log))
        return self.started[-1]

    def words(self, words: tuple[str | Path, ...]) -> list[str]:
        return [str(word) for word in words]

    def run(self, *words: str | Path, timeout: float = HANGS, **variables: str) -> str:
        """The output of a command that must succeed."""
        started = self.start(*words, **variables)
        assert started.code(timeout) == 0, started.output
        return started.output

    def end(self) -> None:
        """Kill what still runs."""
        for started in self.started:
            if started.process.poll() is None:
                for process in [*psutil.Process(started.process.pid).children(recursive=True), started.process]:
                    process.kill()
                started.process.wait()


class Node(Here):
    """A node: it ends with all that runs in it when its pipe is closed, be it that the tests were killed."""

    def __init__(self, folder: Path, name: str, address: str):
        super().__init__(folder)
        self.name, self.address = name, address
        words = ["unshare", *_SPACES, "--fork", "--mount-proc", "cat"]
        self.holder = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.pid = 0
        while self.holder.poll() is None and not self.pid:
            time.sleep(0.01)
            self.pid = next((p.pid for p in psutil.Process(self.holder.pid).children() if p.name() == "cat"), 0)
        if not self.pid:
            pytest.skip(f"this machine gives no name spaces: {self.holder.communicate()[1].strip()}")

    def words(self, words: tuple[str | Path, ...]) -> list[str]:
        """A command as it is run on this node, in the root of the repository."""
        return ["nsenter", f"--target={self.pid}", *_SPACES, "env", "-C", str(ROOT), *map(str, words)]

    def end(self) -> None:
        self.holder.communicate()
        for started in self.started:
            started.process.wait()


@pytest.fixture
def here(tmp_path) -> Iterator[Here]:
    """This machine."""
    machine = Here(tmp_path)
    yield machine
    machine.end()


@pytest.fixture(scope="session")
def nodes(tmp_path_factory) -> Iterator[list[Node]]:
    """Two nodes on a network of their own, each with a hosts file that names both. Skips where that is not allowed."""
    if os.geteuid():
        pytest.skip("name spaces for two nodes take root")
    for tool in ("unshare", "nsenter", "ip", "mount", "hostname"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} here")
    folder = tmp_path_factory.mktemp("nodes")
    made: list[Node] = []
    try:
        for number in (1, 2):
            node = Node(folder, f"brain{number}", f"10.77.0.{number}")
            made.append(node)  # at once: where the second fails, the first must be ended
        hosts = folder / "hosts"
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{node.address} {node.name}\n" for node in made))
        first, second = (str(node.pid) for node in made)
        words = ["ip", "link", "add", "eth0", "netns", first, "type", "veth", "peer", "name", "eth0", "netns", second]
        linked = subprocess.run(words, **_QUIET)
        if linked.returncode:
            pytest.skip(f"this machine gives no network between name spaces: {linked.stdout.strip()}")
        for node in made:
            node.run("hostname", node.name)
            node.run("mount", "--bind", hosts, "/etc/hosts")
            node.run("ip", "addr", "add", f"{node.address}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                node.run("ip", "link", "set", link, "up")
        yield made
    finally:
        for node in made:
            node.end()


@pytest.fixture(scope="session")
def losses() -> Callable[[Path], np.ndarray]:
    """The losses of a run, of training and validation, in order."""

    def read(run: Path) -> np.ndarray:
        return np.array([json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()])

    return read


@pytest.fixture(scope="session")
def one_node(store, tmp_path_factory) -> Path:
    """The run of two ranks on one node, by launch/torchrun.sh: what every other launcher must give too."""
    folder = tmp_path_factory.mktemp("one_node")
    Here(folder).run(LAUNCH / "torchrun.sh", f"store={store}", f"run_dir={folder / 'run'}", *KEYS, RANKS="2")
    return folder / "run"


@pytest.fixture
def trains(store, one_node, losses, tmp_path) -> Training:
    """Checks of a training by another launcher."""
    return Training(store, one_node, losses, tmp_path / "run")


@dataclass
class Training:
    """A training on the tiny cohort, to be started somehow."""

    store: Path
    one_node: Path
    losses: Callable[[Path], np.ndarray]
    run_dir: Path

    def words(self, *keys: str) -> list[str]:
        """What stands behind `udipdist train`; `keys` win."""
        return [f"store={self.store}", f"run_dir={self.run_dir}", *KEYS, *keys]

    def wait_for_steps(self, *started: Started, seconds: float = 90.0) -> None:
        """Return once the first epochs are trained."""
        limit = time.monotonic() + seconds
        metrics = self.run_dir / "metrics.jsonl"
        while not metrics.exists() or metrics.read_text().count("\n") < 12:
            outputs = "\n".join(one.output for one in started)
            assert time.monotonic() < limit and all(one.process.poll() is None for one in started), outputs
            time.sleep(0.1)

    def last(self) -> dict:
        """The meta.json of the last checkpoint."""
        place = self.run_dir / "checkpoints"
        return json.loads((place / json.loads((place / "last.json").read_text())["folder"] / "meta.json").read_text())

    def check(self, launcher: str, ranks: int = 2) -> None:
        """The losses are those of two ranks on one node: to 1e-6, or 1e-4 where the ranks are not two."""
        starts = json.loads((self.run_dir / "provenance.json").read_text())["starts"]
        assert [(start["launcher"], start["ranks"]) for start in starts] == [(launcher, ranks)]
        tolerance = 1e-6 if ranks == 2 else 1e-4
        np.testing.assert_allclose(self.losses(self.run_dir), self.losses(self.one_node), rtol=tolerance)
