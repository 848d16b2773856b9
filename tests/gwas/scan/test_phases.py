"""gwas-plan, gwas-part, gwas-finish: resumed, cut and damaged, the finished output has the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hpc import parts
from hpc.errors import ConfigError, Incomplete, InputError, InUse, NoSpace, OutputExists
from hpc.lock import held
from hpc.stage import read_manifest
from udipdist.cli import VERBS, resolve
from udipdist.config import GwasFinishConfig, GwasPartConfig, GwasPlanConfig
from udipdist.gwas.scan import job
from udipdist.gwas.scan.phases import gwas_finish, gwas_part, gwas_plan, numbers, preview
from udipdist.gwas.scan.verb import gwas
from udipdist.sumstats.store import Sumstats


@pytest.fixture(scope="module")
def cohort(make_cohort, tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("phases"), seed=2, m=50)


@pytest.fixture(scope="module")
def undisturbed(cohort) -> dict[str, str]:
    """What one run in five parts writes."""
    config = cohort.config("undisturbed", variants_per_part=10)
    gwas(config)
    return written(config.out)


def written(out: Path) -> dict[str, str]:
    """Every file of a scan's output and the hash of its bytes; of attributes without the time of creation."""
    found = {}
    for path in [out / "null.tsv", out / "samples.tsv", *sorted((out / "sumstats.zarr").rglob("*"))]:
        if path.is_file():
            data = path.read_bytes()
            if path.relative_to(out).as_posix() == "sumstats.zarr/zarr.json":
                tree = json.loads(data)
                assert tree["attributes"].pop("created")
                data = json.dumps(tree).encode()
            found[path.relative_to(out).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


class Phases:
    """The three verbs on one output of five parts."""

    def __init__(self, cohort, name: str):
        self.cohort, self.name, self.out = cohort, name, cohort.folder / name

    def config(self, cls, **keys):
        tree = self.cohort.config(self.name, variants_per_part=10).tree()
        return cls.parse(tree | keys)

    def plan(self, **keys) -> None:
        gwas_plan(self.config(GwasPlanConfig, **keys))

    def part(self, part: str | int, **keys) -> None:
        gwas_part(self.config(GwasPartConfig, part=part, **keys))

    def finish(self, **keys) -> None:
        gwas_finish(self.config(GwasFinishConfig, **keys))


@pytest.fixture
def phases(cohort, request) -> Phases:
    return Phases(cohort, request.node.name.replace("[", "_").replace("]", ""))


def test_the_phases_give_the_bytes_of_one_run(phases, undisturbed):
    with pytest.raises(Incomplete, match="has no plan yet; run gwas-plan"):
        phases.part(0)
    phases.plan()
    phases.part(2)
    phases.part("0,3-9")
    with pytest.raises(ConfigError, match=r"part=5: there are 5 parts, 0\.\.4"):
        phases.part(5)
    with pytest.raises(Incomplete, match=r"1 of 5 parts are not done \(parts 1\)"):
        phases.finish()
    with pytest.raises(OutputExists, match=r"another plan \(different: config.adjust\)"):
        phases.part(1, adjust="project")
    assert preview(phases.config(GwasFinishConfig))[-2].startswith("4 of 5 parts are done, ")
    assert preview(phases.config(GwasPartConfig, part="0-9"))[-3:][0] == "parts to do now: 1"
    phases.part(1, block=3)
    phases.finish()
    assert written(phases.out) == undisturbed
    assert read_manifest(phases.out)["facts"]["n_tested"] == 50
    with pytest.raises(OutputExists):
        phases.plan()


def test_parts_run_beside_others_and_the_ends_do_not(phases, undisturbed):
    with held(phases.out, "gwas"):
        for phase in (phases.plan, phases.finish):
            with pytest.raises(InUse, match="another gwas is at work on it"):
                phase()
    phases.plan()
    with held(phases.out, "gwas"):
        phases.part("0-4")
    phases.finish()
    assert written(phases.out) == undisturbed


@pytest.mark.parametrize(
    ("text", "expected"), [("3", [3]), ("0-2", [0, 1, 2]), ("8-12", [8, 9]), ("9,1-2,1", [1, 2, 9])]
)
def test_numbers_of_parts(text, expected):
    assert numbers(text, 10) == expected


@pytest.mark.parametrize("text", ["10", "12-14", "0,10"])
def test_numbers_that_are_not_there(text):
    with pytest.raises(ConfigError, match=r"there are 10 parts, 0\.\.9"):
        numbers(text, 10)


@pytest.mark.parametrize("text", ["x", "-1", "1-", "1,,2", "1.5", "0..3"])
def test_words_that_name_no_part(phases, text):
    with pytest.raises(ConfigError, match="is not a part; give a number such as 7, a range such as 0-9"):
        phases.config(GwasPartConfig, part=text)


def test_an_interrupted_run_goes_on_with_the_same_bytes(cohort, undisturbed, monkeypatch):
    broken = cohort.config("broken", variants_per_part=10)
    part, done = job.Scan.part, []

    def fail_at_the_third(self, index):
        if index == 2:
            raise RuntimeError("killed")
        done.append(index)
        return part(self, index)

    monkeypatch.setattr(job.Scan, "part", fail_at_the_third)
    with pytest.raises(RuntimeError, match="killed"):
        gwas(broken)
    assert read_manifest(broken.out) is None
    with pytest.raises(InputError, match="is unfinished"):
        Sumstats.open(broken.out)
    monkeypatch.setattr(job.Scan, "part", lambda self, index: done.append(index) or part(self, index))
    gwas(broken)
    assert done == [0, 1, 2, 3, 4]
    assert written(broken.out) == undisturbed


# ------------------------------------------------------------------------------------------- damage to the output


def delete(path: Path) -> None:
    path.unlink()


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "told"), [(delete, r"is missing"), (cut_off, r"has \d+ bytes, not \d+"), (flip, "other bytes")]
)
def test_a_damaged_shard_is_named_and_done_again(phases, undisturbed, damage, told):
    phases.plan()
    phases.part("0-4")
    damage(phases.out / "sumstats.zarr/se/c/3/0")
    with pytest.raises(Incomplete, match=rf"1 files of 1 parts .* sumstats.zarr/se/c/3/0 \({told}\); .*\(parts 3\)"):
        phases.finish()
    assert not (phases.out / "manifest.json").exists()
    phases.part(3)
    phases.finish()
    assert written(phases.out) == undisturbed


@pytest.mark.parametrize("damage", [delete, cut_off, flip])
def test_going_on_does_damaged_parts_again(cohort, undisturbed, damage):
    config = cohort.config(f"lost_{damage.__name__}", variants_per_part=10)
    gwas(config)
    (config.out / "manifest.json").unlink()
    parts.marker(config.out, 0).unlink()
    damage(config.out / "sumstats.zarr/beta/c/3/0")
    gwas_plan(GwasPlanConfig.parse(cohort.config(config.out.name, variants_per_part=10).tree()))
    gwas(config)
    assert written(config.out) == undisturbed


def test_what_the_plan_wrote_is_checked_too(phases):
    phases.plan()
    phases.part("0-4")
    delete(phases.out / "sumstats.zarr/snp/c/2")
    with pytest.raises(
        Incomplete, match=r"that the plan wrote .* sumstats.zarr/snp/c/2 \(is missing\); .* overwrite=true"
    ):
        phases.finish()


def test_what_killed_writers_left_is_swept(phases, undisturbed):
    phases.plan()
    phases.part("0-4")
    (phases.out / "sumstats.zarr/beta/c/1/0.0123456789abcdef0123456789abcdef.partial").write_bytes(b"half")
    (phases.out / ".null.tsv.partial-0123abcd").write_text("half")
    (phases.out / "notes.partial").write_text("the user's own")
    phases.finish()
    assert written(phases.out) == undisturbed
    assert {p.name for p in phases.out.iterdir() if "partial" in p.name} == {"notes.partial"}


# ------------------------------------------------------------------------------------------------ changed input


@pytest.fixture
def own(make_cohort, tmp_path):
    """A cohort that a test may harm."""
    return make_cohort(tmp_path, seed=3, n=40, m=30)


def test_input_that_changed_between_plan_and_part(own):
    phases = Phases(own, "out")
    phases.plan()
    os.utime(own.folder / "c.pheno", ns=(0, 1))
    with pytest.raises(OutputExists, match=r"another plan \(different: inputs.phenotypes.changed_ns\)"):
        phases.part(0)


def rewrite(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[10] ^= 0xFF
    path.write_bytes(data)
    os.utime(path, ns=(1, 1))  # a test is faster than some file systems' clocks


def replaced(path: Path) -> None:
    other = path.with_name("other.bed")
    shutil.copy(path, other)
    os.utime(other, ns=(1, 1))
    other.replace(path)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (cut_off, "c.bed: (ends at byte [0-9,]+, in the middle of its variants|has changed since it was opened)"),
        (delete, r"c.bed: (disappeared|cannot be read any more) \(No such file or directory\)"),
        (rewrite, "c.bed: has changed since it was opened"),
        (replaced, "c.bed: has changed since it was opened"),
    ],
)
@pytest.mark.parametrize("before_part", [0, 2])
def test_genotypes_that_change_while_they_are_read(own, monkeypatch, harm, told, before_part):
    config = own.config("out", variants_per_part=10)
    part = job.Scan.part

    def harmed(self, index):
        if index == before_part:
            harm(own.folder / "c.bed")
        return part(self, index)

    monkeypatch.setattr(job.Scan, "part", harmed)
    with pytest.raises(InputError, match=told):
        gwas(config)
    assert read_manifest(config.out) is None
    assert done(config.out) == list(range(before_part))


def done(out: Path) -> list[int]:
    return sorted(int(path.stem) for path in out.glob("parts/*.json"))


def test_a_bed_that_is_put_back_goes_on(own, monkeypatch):
    whole = own.config("whole", variants_per_part=10)
    gwas(whole)
    config, bed = own.config("out", variants_per_part=10), own.folder / "c.bed"
    kept = bed.with_name("kept.bed")
    part = job.Scan.part
    monkeypatch.setattr(job.Scan, "part", lambda self, i: (bed.rename(kept) if i == 1 else None, part(self, i))[1])
    with pytest.raises(InputError, match="disappeared"):
        gwas(config)
    kept.rename(bed)
    monkeypatch.setattr(job.Scan, "part", part)
    gwas(config)
    assert written(config.out) == written(whole.out)


def test_a_scan_and_its_input_may_move(own, monkeypatch):
    (own.folder / "some.txt").write_text("".join(f"rs1_{i}\n" for i in range(25)))
    keys = {"variants_per_part": 10, "extract": own.folder / "some.txt"}
    whole = own.config("whole", **keys)
    gwas(whole)
    config = own.config("out", **keys)
    part = job.Scan.part
    monkeypatch.setattr(job.Scan, "part", lambda self, i: 1 / 0 if i == 1 else part(self, i))
    with pytest.raises(ZeroDivisionError):
        gwas(config)
    monkeypatch.setattr(job.Scan, "part", part)
    moved = own.folder.with_name("moved")
    own.folder.rename(moved)
    monkeypatch.chdir(moved)
    tree = json.loads(json.dumps(config.tree()).replace(f"{own.folder}/", ""))
    gwas(type(config).parse(tree))
    assert done(moved / "out") == [0, 1, 2]
    assert written(moved / "out") == written(moved / "whole")
    os.utime(moved / "c.pheno", ns=(0, 1))
    with pytest.raises(OutputExists, match="already exists"):
        gwas(type(config).parse(tree))


# ------------------------------------------------------------------------------------------------------- planning


def test_a_scan_that_fails_before_its_first_part_leaves_nothing(own, monkeypatch):
    config = own.config("out", formula="nosuch")
    with pytest.raises(InputError, match="nosuch"):
        gwas(config)
    assert not config.out.exists()

    def full(*_):
        raise NoSpace("the disk is full")

    monkeypatch.setattr("udipdist.sumstats.store.create", full)
    for name in ("c", "d"):
        shutil.copy(own.folder / "c.pheno", own.folder / f"{name}2.pheno")
    several = own.config("several", phenotypes=[own.folder / "c2.pheno", own.folder / "d2.pheno"])
    for config in (own.config("out"), several):
        with pytest.raises(NoSpace):
            gwas(config)
        assert not config.out.exists()


def test_planning_never_deletes_a_folder_that_is_not_ours(cohort, phases):
    phases.out.mkdir()
    (phases.out / "thesis.tex").write_text("years")
    with pytest.raises(OutputExists, match="other files in it"):
        phases.plan(overwrite=True)
    assert (phases.out / "thesis.tex").exists()
    anew = Phases(cohort, "anew")
    anew.plan()
    with pytest.raises(OutputExists, match="another plan"):
        anew.plan(adjust="project")
    anew.part(0)
    anew.plan(adjust="project", overwrite=True)
    assert done(anew.out) == []


def test_all_missing_parts_leave_no_shard_but_are_no_damage(own):
    """Zarr writes no chunk that holds the fill value only; that is not a lost file."""
    config = own.config("out", variants_per_part=10, min_maf=0.6)
    gwas(config)
    assert np.isnan(Sumstats.open(config.out).beta("y0")).all()
    assert not (config.out / "sumstats.zarr/beta/c").exists()


# ---------------------------------------------------------------------------------------------------------- Slurm


def test_a_slurm_array(cohort, phases, undisturbed):
    """Two parts a task, by launch/gwas.sbatch."""
    if shutil.which("sbatch") is None:
        pytest.skip("there is no sbatch here")
    words = ["timeout", "20", "sinfo", "--noheader", "--states=idle,mixed"]
    asked = subprocess.run(words, capture_output=True, text=True)
    if asked.returncode or not asked.stdout.strip():
        pytest.skip(f"Slurm has no idle node here ({[*asked.stderr.splitlines(), 'sinfo lists none'][0]})")
    phases.plan()
    path = cohort.folder / "array.yaml"
    path.write_text(phases.config(GwasPlanConfig).yaml())
    root = Path(__file__).parents[3]
    words = ["--array=0-2", "--cpus-per-task=1", "--mem=500M", "--time=5", f"--chdir={root}", "--export=ALL,PARTS=2"]
    words.append(f"--output={cohort.folder}/array-%a.log")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    subprocess.run(
        ["sbatch", *words, root / "launch" / "gwas.sbatch", path], env=environment, check=True, capture_output=True
    )
    limit = time.monotonic() + 120
    while len(list(phases.out.glob("parts/*.json"))) < 5 and time.monotonic() < limit:
        time.sleep(0.1)
    assert len(list(phases.out.glob("parts/*.json"))) == 5, [p.read_text() for p in cohort.folder.glob("array-*.log")]
    phases.finish()
    assert written(phases.out) == undisturbed


def test_the_number_of_a_part_stands_first_or_as_a_key():
    verb = next(verb for verb in VERBS if verb.name == "gwas-part")
    rest = ("genotypes=g", "phenotypes=p", "test=linear", "out=o")
    assert resolve(verb, ("7", *rest)).part == resolve(verb, ("part=7", *rest)).part == "7"
    assert resolve(verb, ("0-9", *rest)).part == resolve(verb, (*rest, "part=0-9")).part == "0-9"
    assert resolve(verb, ("010", *rest)).part == "010"  # not 8, as YAML would have it
    with pytest.raises(ConfigError, match="part: is required"):
        resolve(verb, rest)
    with pytest.raises(ConfigError, match=r"the form is udipdist gwas-part PART \[CONFIG.yaml\] \[key=value ...\]"):
        resolve(verb, (*rest, "7"))


@pytest.mark.parametrize("several", [False, True])
def test_a_reader_misses_a_shard_that_is_gone(cohort, several):
    """Zarr itself reads what is not there as never written: the variants would look untested."""
    keys = {"variants_per_part": 20}
    if several:
        shutil.copy(cohort.folder / "c.pheno", cohort.folder / "other.pheno")
        keys["phenotypes"] = [cohort.folder / "c.pheno", cohort.folder / "other.pheno"]
    config = cohort.config(f"gone{several}", **keys)
    gwas(config)
    folder = config.out / "other" if several else config.out
    Sumstats.open(folder)
    (folder / "sumstats.zarr" / "beta" / "c" / "1" / "0").unlink()
    with pytest.raises(InputError, match=r"1 of its files have changed: .*beta/c/1/0 \(is missing\)"):
        Sumstats.open(folder)
    if several:
        Sumstats.open(config.out / "c")


def test_a_range_of_parts_that_is_turned_round():
    with pytest.raises(ConfigError, match=r"part=5-3: ends before it begins; write part=3-5"):
        numbers("0,5-3", 10)
