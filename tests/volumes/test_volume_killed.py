"""An ingest that is killed at any moment, or whose disk is full: run again, it ends with the same bytes."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from hpc.stage import read_manifest
from udipdist.config import IngestConfig
from udipdist.volumes.ingest import ingest
from udipdist.volumes.store import VolumeStore

ROOT = Path(__file__).parents[2]
SHAPE = (9, 10, 8)

# Runs ingests in forks of itself, which start at once. One is killed before the n-th time that it changes something on
# the disk: opens a file to write, renames, makes a folder or removes something.
KILLED = """
import json, os, signal, sys
from hpc.errors import OutputExists
from udipdist.config import IngestConfig
from udipdist.volumes import contact_sheet, ingest

contact_sheet.write = lambda path, groups: None  # takes long to draw
CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link"}

def run(config, kill_at):
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    seen = 0
    def count(event, args):
        nonlocal seen
        if event in CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)):
            seen += 1
            if seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    try:
        ingest.ingest(config)
    except OutputExists:
        os._exit(3)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    print(seen, flush=True)
    os._exit(0)

asked = json.loads(sys.argv[1])
config = lambda out: IngestConfig.parse(asked["config"] | {"out": out})
if asked["kill_at"] is None:
    sys.exit(os.waitstatus_to_exitcode(run(config(asked["outs"][0]), None)))
for out, n in zip(asked["outs"], asked["kill_at"]):
    killed, again = run(config(out), n), os.waitstatus_to_exitcode(run(config(out), None))
    assert os.WIFSIGNALED(killed), (n, killed)
    assert again in (0, 3), (n, again)
"""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Seven subjects with two modalities; one has no second image, and one is damaged."""
    place = tmp_path_factory.mktemp("killed")
    lines = ["EID,T1,T2"]
    for i in range(7):
        for name in ("a", "b"):
            values = np.random.default_rng(i).integers(0, 900, SHAPE).astype(np.int16)
            nib.save(nib.Nifti1Image(values, np.diag([4.0, 4, 4, 1])), place / f"{name}{i}.nii.gz")
        lines.append(f"{i},a{i}.nii.gz," + ("" if i == 2 else f"b{i}.nii.gz"))
    (place / "b4.nii.gz").write_bytes((place / "b4.nii.gz").read_bytes()[:-9])
    (place / "scans.csv").write_text("\n".join(lines) + "\n")
    return place


def config(cohort, out, **keys):
    keys = {
        "modalities": ["T1", "T2"],
        "workers": 0,
        "subjects_per_shard": 3,
        "allow_failures": 2,
        "allow": "background",
    } | keys
    return IngestConfig(volumes=cohort / "scans.csv", out=out, **keys)


def forks(cohort, outs, kill_at):
    tree = config(cohort, outs[0]).tree()
    asked = json.dumps({"config": tree, "outs": [str(out) for out in outs], "kill_at": kill_at})
    result = subprocess.run(
        [sys.executable, "-c", KILLED, asked], cwd=ROOT, text=True, capture_output=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return [int(line) for line in result.stdout.split()]


def written(out: Path) -> dict[str, bytes]:
    """Every file of a store and beside it, without the manifest."""
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    beside = [path for path in out.parent.glob(f"{out.stem}.*") if path.is_file() and "manifest" not in path.name]
    return found | {"beside " + path.name.removeprefix(out.stem): path.read_bytes() for path in beside}


def test_killed_at_any_moment(cohort, tmp_path):
    (changes,) = forks(cohort, [tmp_path / "undisturbed.zarr"], None)
    undisturbed = written(tmp_path / "undisturbed.zarr")
    assert {"beside .failures.tsv", "beside .qc.tsv", "zarr.json", "T2/mask/zarr.json"} <= set(undisturbed)
    moments = [1 + i * (changes - 1) // 8 for i in range(9)]
    outs = [tmp_path / f"killed{moment}.zarr" for moment in moments]
    forks(cohort, outs, moments)
    for out in outs:
        assert written(out) == undisturbed, out
        assert read_manifest(out)["facts"]["failures"] == 2


def test_a_limit_of_file_sizes(cohort, tmp_path):
    """As a full disk: a message and no half-written subject; without the limit the same command goes on."""
    whole, limited = (config(cohort, tmp_path / f"{name}.zarr", modalities=["T1"]) for name in ("whole", "limited"))
    ingest(whole)
    largest = max(path.stat().st_size for path in (whole.out / "image" / "c").rglob("*") if path.is_file())
    limit = largest - 1
    assert limit > 3000  # the plan and the small arrays fit
    (tmp_path / "ingest.yaml").write_text(yaml.safe_dump(limited.tree()))
    process = subprocess.run(
        [sys.executable, "-m", "udipdist", "ingest", str(tmp_path / "ingest.yaml")],
        cwd=ROOT, text=True, capture_output=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert process.returncode == 2 and "Traceback" not in process.stderr
    assert "a file size limit is reached (File too large), in part" in process.stderr
    assert not list((limited.out / "image").rglob("*.partial-*")) and read_manifest(limited.out) is None
    ingest(limited)
    assert written(limited.out) == written(whole.out)
    assert VolumeStore.open(limited.out).valid.all()
