"""A scan whose worker or caller is killed, or whose disk is full: run again, it ends with the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from hpc import parts
from hpc.errors import NoSpace
from hpc.stage import read_manifest
from hpc.testing import HANGS
from udipdist.config import GwasConfig, GwasPartConfig, GwasPlanConfig
from udipdist.gwas.scan.phases import gwas_part, gwas_plan
from udipdist.gwas.scan.verb import gwas

ROOT = Path(__file__).parents[3]
PARTS = 24


@pytest.fixture(scope="module")
def cohort(make_cohort, tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("killed"), seed=5, n=80, m=30 * PARTS)


@pytest.fixture(scope="module")
def undisturbed(cohort) -> dict[str, str]:
    config = cohort.config("undisturbed", variants_per_part=30)
    gwas(config)
    return written(config.out)


def written(out: Path) -> dict[str, str]:
    """Every file below `out` and the hash of its bytes, without the times in manifests, records and attributes."""
    found = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        data, name = path.read_bytes(), path.relative_to(out).as_posix()
        if name in ("manifest.json", "plan.json"):
            continue
        if name.startswith("parts/"):
            tree = json.loads(data)
            data = json.dumps([tree.get("facts"), {k: v for k, v in tree["files"].items() if k != ATTRIBUTES}]).encode()
        elif name == ATTRIBUTES:
            tree = json.loads(data)
            assert tree["attributes"].pop("created")
            data = json.dumps(tree).encode()
        found[name] = hashlib.sha256(data).hexdigest()
    return found


ATTRIBUTES = "sumstats.zarr/zarr.json"


def start(config: GwasConfig, folder: Path, **limits) -> subprocess.Popen:
    """`udipdist gwas` in a process of its own."""
    path = folder / f"{config.out.name}.yaml"
    path.write_text(yaml.safe_dump(config.tree()))
    return subprocess.Popen(
        [sys.executable, "-m", "udipdist", "gwas", str(path)],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **limits,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def wait_for_parts(out: Path, n: int, process: subprocess.Popen) -> None:
    limit = time.monotonic() + HANGS
    while len(list(out.glob("parts/*.json"))) < n:
        assert process.poll() is None and time.monotonic() < limit, process.communicate()
        time.sleep(0.005)


def done(out: Path) -> int:
    return len(list(out.glob("parts/*.json")))


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if any("spawn_main" in word for word in child.cmdline())]


def test_a_worker_killed_in_the_middle(cohort, undisturbed):
    config = cohort.config("worker", variants_per_part=30, workers=2)
    process = start(config, cohort.folder)
    wait_for_parts(config.out, 4, process)
    workers = workers_of(process)
    workers[0].send_signal(signal.SIGKILL)
    assert done(config.out) < PARTS and len(workers) == 2
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert written(config.out) == undisturbed


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 75, "stopped by SIGTERM")],
    ids=["ctrl-c", "sigterm"],
)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.usefixtures("terminal")
def test_all_of_a_job_are_asked_to_stop(cohort, undisturbed, workers, number, code, word):
    """As a terminal and a scheduler do it: one sentence, no traceback of anybody, and the same command goes on."""
    config = cohort.config(f"asked{workers}{code}", variants_per_part=30, workers=workers)
    process = start(config, cohort.folder, start_new_session=True)
    wait_for_parts(config.out, 4, process)
    os.killpg(process.pid, number)
    said = process.communicate()[1]
    assert process.returncode == code, said
    assert f"udipdist gwas: {word}; the same command continues where it stopped" in said
    assert "Traceback" not in said and 4 <= done(config.out) < PARTS
    gwas(config.model_copy(update={"workers": 0}))
    assert written(config.out) == undisturbed


@pytest.mark.parametrize("workers", [0, 2])
def test_the_caller_killed_in_the_middle(cohort, undisturbed, workers):
    config = cohort.config(f"caller{workers}", variants_per_part=30, workers=workers)
    process = start(config, cohort.folder)
    wait_for_parts(config.out, 4, process)
    children = workers_of(process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    psutil.wait_procs(children, timeout=HANGS)
    assert not any(child.is_running() for child in children) and 4 <= done(config.out) < PARTS
    kept = {path: path.stat().st_mtime_ns for path in config.out.glob("parts/*.json")}
    gwas(config.model_copy(update={"workers": 0}))
    assert written(config.out) == undisturbed
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in kept.items())


def test_a_limit_of_file_sizes(cohort):
    whole, config = (cohort.config(name, variants_per_part=15 * PARTS) for name in ("whole", "limited"))
    gwas(whole)
    gwas_plan(GwasPlanConfig.parse(config.tree()))
    gwas_part(GwasPartConfig.parse(config.tree() | {"part": 0}))
    largest = max(path.stat().st_size for path in config.out.glob("sumstats.zarr/*/c/**/*") if path.is_file())
    record = parts.marker(config.out, 0).stat().st_size
    between = (record + largest) // 2
    assert record + 200 < between < largest - 200

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (between, between))

    process = start(config, cohort.folder, preexec_fn=limit)
    _, err = process.communicate()
    assert process.returncode == 2 and "Traceback" not in err
    assert "the disk is full, or a file size limit is reached (File too large), in part 1; free some space" in err
    assert done(config.out) == 1 and read_manifest(config.out) is None
    gwas(config)
    assert written(config.out) == written(whole.out)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 8 MB, where one may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here ({mounted.stderr.strip()})")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(path):
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)


def test_a_full_disk(cohort, undisturbed, small_disk):
    config = cohort.config("x", variants_per_part=30).model_copy(update={"out": small_disk / "out"})
    gwas_plan(GwasPlanConfig.parse(config.tree()))
    gwas_part(GwasPartConfig.parse(config.tree() | {"part": "0-3"}))
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        fill(filler)
    os.truncate(filler, filler.stat().st_size - 400 * 1024)  # room for some more parts
    with pytest.raises(NoSpace, match=r"the disk is full.*\(No space left on device\), in part \d+; free some space"):
        gwas(config)
    assert 4 < done(config.out) < PARTS and read_manifest(config.out) is None
    filler.unlink()
    gwas(config)
    assert written(config.out) == undisturbed
