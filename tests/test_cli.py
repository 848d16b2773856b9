"""The command line: one grammar, light to start, one clear message for a mistake."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hpc.config import describe
from udipdist.cli import VERBS

NAMES = [verb.name for verb in VERBS]


@pytest.mark.parametrize("verb", VERBS, ids=NAMES)
def test_help_lists_every_key(verb, udipdist):
    text = udipdist(*verb.name.split(), "--help").stdout
    for doc in describe(verb.config):
        assert f"{doc.key}  (" in text
        assert doc.meaning, f"{verb.name}.{doc.key} has no description"


@pytest.mark.parametrize("words", [["--help"], *[[*name.split(), "--help"] for name in NAMES]], ids=lambda w: w[0])
def test_help_loads_nothing_heavy(words):
    program = (
        "import sys\nfrom udipdist.cli import main\n"
        f"try: main({words!r})\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'deepspeed', 'dask', 'distributed', 'nilearn', 'numba', 'pandas', 'zarr', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gwas", "genotype=x"], "genotype: unknown key; did you mean genotypes?"),
        (["train", "store=x", "run_dir=y", "optim.lr=fast"], "optim.lr='fast'"),
        (["loci", "key=1", "stray"], "'stray': is not of the form key=value"),
        (["ingest", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["panel", "loci=loci", "out=file/below"], "file: File exists; check the path"),
    ],
)
def test_mistake_is_one_message_without_traceback(words, message, udipdist, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "loci").mkdir()
    (tmp_path / "loci" / "GenomicRiskLoci.txt").write_text("GenomicLocus\tchr\tstart\tend\n1\t1\t5\t6\n")
    result = udipdist(*words, check=False)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_the_deepspeed_launcher_may_add_its_option(udipdist):
    assert "lead SNPs" in udipdist("--local_rank=0", "loci", "--help").stdout


def test_dry_run_prints_a_config_that_can_be_used(tmp_path, udipdist):
    words = ["run", "out=r", "volumes=v", "genotypes=g", "stages.train.epochs=3"]
    first = udipdist(*words, "--dry-run").stdout
    (tmp_path / "c.yaml").write_text(first)
    assert udipdist("run", "c.yaml", "--dry-run").stdout == first
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("words", "typed"),
    [
        (["gwas", "--genotypes", "chr1"], "genotypes=chr1"),
        (["gwas", "--genotypes=chr1"], "genotypes=chr1"),
        (["gwas", "-out"], "out=VALUE"),
        (["interpret", "clusters", "--match-bp", "5"], "match_bp=5"),
    ],
    ids=["apart", "joined", "one dash", "hyphen"],
)
def test_a_key_with_dashes_is_answered_with_what_to_type(words, typed, udipdist):
    result = udipdist(*words, check=False)
    assert result.returncode == 2 and f"keys have no dashes; type {typed}" in result.stderr


def test_a_finished_command_is_up_to_date_while_nothing_has_changed(udipdist, tmp_path):
    (tmp_path / "loci").mkdir()
    table = tmp_path / "loci" / "GenomicRiskLoci.txt"
    table.write_text("GenomicLocus\tchr\tstart\tend\n1\t1\t5\t6\n")
    words = ["panel", "loci=loci", "pool=0", "rotations=19", "out=p"]
    udipdist(*words)
    made = (tmp_path / "p" / "manifest.json").read_bytes()
    again = udipdist(*words)
    assert "udipdist panel: p is up to date; overwrite=true makes it again" in again.stderr
    assert (tmp_path / "p" / "manifest.json").read_bytes() == made
    assert "already exists" in udipdist(*words, "flank_bp=5", check=False).stderr
    table.write_text("GenomicLocus\tchr\tstart\tend\n1\t1\t5\t7\n2\t1\t9\t10\n")
    assert "already exists" in udipdist(*words, check=False).stderr
    assert "done in" in udipdist(*words, "overwrite=true").stderr


def test_a_dry_run_says_the_plan_first(udipdist, tmp_path):
    lines = udipdist("simulate", "preset=smoke", "out=c", "--dry-run").stdout.splitlines()
    first_key = next(i for i, line in enumerate(lines) if not line.startswith("# "))
    assert 0 < first_key < len(lines) and not any(line.startswith("# ") for line in lines[first_key:])
