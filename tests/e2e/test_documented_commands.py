"""The commands of the documents are run, word by word as they stand there, in a folder with small files of these names.

Commands run in the order of the pages and go on from one another's output, as a reader's do, so a test of this file
needs those before it. What a page shows again that an earlier one has shown is run once. Only sizes are changed, by
the words of SIZES, and only to save time.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from hpc import warm
from tests.e2e import own_files
from tests.e2e.own_files import ROOT
from udipdist.pipeline import IMPORTS
from udipdist.verbs import VERBS

PAGES = ["README.md", "launch/README.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md"))]
PROGRAMS = r"udipdist|torchrun|deepspeed|srun|sbatch|launch/\S+|make|pip|python|pytest|sh"

MINUTES = "takes minutes; parsed by tests/test_docs.py"
INSTALLS = "installs packages"
SLURM = "needs Slurm; tests/launch/test_launch_slurm.py"
LAUNCHERS = "tests/launch runs it"
THREE_LOCI = "needs three loci, and the reader's cohort has two; tests/analysis/test_clusters_verb.py"
BENCHMARK = "a benchmark; tests/benchmarks runs them small"
NOT_RUN = {
    "make demo": MINUTES,
    "make test": "runs this test",
    "make sweep-demo": MINUTES,
    "pip install '.[all]'": INSTALLS,
    "pip install 'udipdist[liftover]'": INSTALLS,
    "pip install 'udipdist[slurm]'": INSTALLS,
    "pytest -m cluster": MINUTES,
    "udipdist sweep configs/sweep/table1.yaml out=table1": MINUTES,
    "udipdist sweep configs/sweep/table1.yaml store=train.zarr out=table1": MINUTES,
    "udipdist compare configs/compare/cnn_vs_vit.yaml out=compare": MINUTES,
    "udipdist simulate preset=bench out=bench": MINUTES,
    "udipdist sweep sweep.yaml": MINUTES,
    "udipdist sweep sweep.yaml ray.address=HOST:PORT": "needs a running Ray; tests/launch/test_launch_ray.py",
    "udipdist interpret clusters sumstats=gwas loci=loci out=clusters": THREE_LOCI,
    "udipdist interpret clusters sumstats=[gwas,gwas_b] loci=[loci,loci_b] out=trees": THREE_LOCI,
    "udipdist report run=SWEEP": "needs the folder of a sweep; tests/report/test_report_sweeps.py",
    "sh best.sh FOLDER": "needs the folder of a sweep; tests/sweep/test_sweep_command.py",
    "udipdist interpret attention run_dir=vit store=scans.zarr out=look/attention": "README's, into another folder",
    "udipdist ingest volumes=...": "stands for the forms of the table below it; tests/volumes",
    "udipdist gwas gwas.yaml cluster.slurm.jobs=40": SLURM,
    "udipdist gwas gwas.yaml cluster.slurm.jobs=40 cluster.slurm.queue=QUEUE cluster.slurm.cores=4": SLURM,
    "udipdist gwas gwas.yaml cluster.address=tcp://HOST:8786": "needs a Dask scheduler; tests/hpc/test_cluster.py",
    "launch/dask.sh scheduler.json HOST1 HOST2": "needs other hosts",
    "sbatch --nodes=4 launch/ray.sbatch configs/sweep/table1.yaml": SLURM,
    "sbatch --nodes=4 --cpus-per-task=32 --gpus-per-node=8 launch/ray.sbatch sweep.yaml": SLURM,
    "sbatch --nodes=2 --gpus-per-node=8 launch/train.sbatch train.yaml": SLURM,
    "sbatch --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 launch/train.sbatch train.yaml": SLURM,
    "sbatch launch/gwas.sbatch": SLURM,
    "sbatch --array=0-1220%100 launch/gwas.sbatch gwas.yaml": SLURM,
    "srun --nodes=2 --ntasks-per-node=1 launch/task.sh train.yaml": SLURM,
    "udipdist gwas gwas.yaml workers=N": "README's has workers, too",
    "udipdist train train.yaml": LAUNCHERS,
    "launch/torchrun.sh train.yaml": LAUNCHERS,
    "NODES=2 HEAD=HOST1 launch/torchrun.sh train.yaml": LAUNCHERS,
    "launch/deepspeed.sh train.yaml": LAUNCHERS,
    "HOSTFILE=hosts launch/deepspeed.sh train.yaml": LAUNCHERS,
    "HOSTFILE=hosts NODE_RANK=0 launch/deepspeed.sh train.yaml": LAUNCHERS,
    "deepspeed --launcher slurm": SLURM,
    "python -m benchmarks.gwas": BENCHMARK,
    "python -m benchmarks.gwas --quick": BENCHMARK,
    "python -m benchmarks.gwas --cohort bench": BENCHMARK,
    "python -m benchmarks.gwas --memory": BENCHMARK,
    "python -m benchmarks.volumes --quick": BENCHMARK,
    "python -m benchmarks.grm": BENCHMARK,
    "python -m benchmarks.loci": BENCHMARK,
    "python -m benchmarks.pictures --data FOLDER": BENCHMARK,
    "python -m benchmarks.train --quick": BENCHMARK,
    "python -m benchmarks.sweep --quick": BENCHMARK,
    "python -m benchmarks.clusters": BENCHMARK,
    "python -m benchmarks.probes": BENCHMARK,
    "python -m benchmarks.interpret": BENCHMARK,
    "python -m benchmarks.interpret --quick": BENCHMARK,
}

# Another command in place of one that needs a cluster, for those that come after it: what the tasks of the array do.
INSTEAD = {"sbatch --array=0-79 launch/gwas.sbatch gwas.yaml": "udipdist gwas-part 0-79 gwas.yaml"}

# Words added to a command so that it takes seconds, for all commands that begin so.
SMALL_NETWORK = "epochs=1 model.depth=1 model.latent=16"
FEW = "subjects=20 permutations=20"
SIZES = {
    "udipdist ingest volumes=scans.csv": "workers=2",
    "udipdist gwas genotypes='chr{chr}'": "workers=2",
    "udipdist train store=scans.zarr": SMALL_NETWORK,
    "udipdist interpret perturb": "subjects=20 permutations=760",
    "udipdist interpret perturb run_dir=vit store=scans.zarr out=look/perturb": "latents=[0]",
    "udipdist interpret attention": FEW,
    "udipdist interpret saliency": "subjects=2 top=1 steps=4 window_mm=60",
    "udipdist phewas": "min_cases=10",
    "udipdist interpret gallery": "sample=16 top=1",
    "udipdist run configs/run.yaml": " ".join(
        f"stages.train.{word}" for word in (*SMALL_NETWORK.split(), "model.decoder_depth=1")
    )
    + " workers=0 report=false",  # tests/e2e/test_demo_smoke.py makes the page
}
FEWER_RANKS = ("--nproc-per-node 8", "--nproc-per-node 2")

# What a reader puts in the place of a word in capitals.
MEANT = {
    "udipdist VERB --help": {"VERB": "gwas"},
    "udipdist inspect PATH": {"PATH": "gwas"},
    "udipdist volumes store=scans.zarr out=DIR format=F subjects=all": {"DIR": "files", "F": "nifti"},
    "udipdist export sumstats=gwas trait=T format=F out=O": {"T": "z000", "F": "regenie", "O": "z000.regenie.gz"},
    "udipdist interpret VERB run_dir=vit store=scans.zarr out=FOLDER": {"VERB": "gallery", "FOLDER": "look/first"},
    "udipdist train RUN_DIR/config.yaml run_dir=OTHER": {"RUN_DIR": "vit", "OTHER": "again"},
}

# What docs/files.md says of the output of a verb, from the path in out= or run_dir=.
GWAS = "sumstats.zarr null.tsv samples.tsv dropped.tsv manifest.json"
MAKES = {
    "ingest": "zarr.json ../scans.qc.tsv ../scans.qc.png",
    "volumes": "files.tsv 1001.nii.gz 1002.nii.gz",
    "train": "config.yaml provenance.json metrics.jsonl checkpoints pictures tensorboard reconstructions.npz",
    "embed": "../latents.parquet ../latents.pheno",
    "grm": "../ukb_sparse.grm.sp ../ukb_sparse.grm.id",
    "gwas": GWAS,
    "gwas-finish": GWAS,
    "loci": "GenomicRiskLoci.txt leadSNPs.txt IndSigSNPs.txt loci.parquet ld.txt locus_traits.parquet lambda_gc.tsv",
    "panel": "hits.tsv panel.json",
    "phewas": "phewas.tsv summary.tsv skipped.tsv qq_latents.png",
    "erase": "../erased.parquet",
    "probe": "probes.tsv skipped.tsv probes.png probes.pdf",
    "interpret attention": "heads.tsv layers.tsv tokens.tsv singular.tsv",
    "interpret perturb": "maps directions.tsv regions.tsv montage_01.png",
    "interpret saliency": "maps sanity.tsv",
    "interpret gallery": "reconstructions.png subjects.tsv walks.png walks.tsv changes",
    "plot": ".",
    "export": ".",
    "run": "ingest train latents.parquet gwas loci loci_multivariate panel config.yaml configs",
}


@dataclass(frozen=True)
class Command:
    """A command of a page, and the place in the page where its block begins."""

    page: str
    block: int
    text: str

    @property
    def verb(self) -> str:
        """The verb, or "" where another program does the work."""
        return next((verb.name for verb in VERBS if re.search(rf"udipdist {verb.name}( |$)", self.text)), "")


def _spans(text: str) -> list[tuple[int, int, str]]:
    """Of a page: place, number of the block, and text of every indented line and of everything in backticks."""
    indented, block, end = [], 0, -1
    for found in re.finditer(r"^    (\S(?:\\\n|.)*)$", text, re.MULTILINE):
        block = block if text[end : found.start()].strip("\n") == "" and end >= 0 else found.start()
        indented.append((found.start(), block, found[1]))
        end = found.end()
    inline = [(found.start(), found.start(), found[1]) for found in re.finditer(r"(?<!`)`([^`]+)`", text)]
    return sorted(indented + inline)


def commands_of(page: str, text: str) -> list[Command]:
    """The commands of a page in order. A verb alone, in a sentence, names the verb and is not a command."""
    found = []
    for _, block, span in _spans(text):
        line = re.sub(r"\s+#\s.*", "", re.sub(r"\s*\\?\n\s*", " ", span), flags=re.DOTALL)
        for part in line.split(";"):
            command = Command(page, block, part.strip())
            is_program = re.fullmatch(rf"(?:[A-Z_]+=\S+ )*(?:{PROGRAMS}) .+", command.text)
            if is_program and command.text not in {f"udipdist {verb.name}" for verb in VERBS}:
                found.append(command)
    return found


def documented() -> list[Command]:
    """The commands of all pages; one that is shown several times stands where it is shown first."""
    found: dict[str, Command] = {}
    for page in PAGES:
        for command in commands_of(page, (ROOT / page).read_text(encoding="utf-8")):
            found.setdefault(command.text, command)
    return list(found.values())


COMMANDS = documented()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """The folder of a reader."""
    folder = tmp_path_factory.mktemp("reader")
    own_files.write(folder)
    gwas = next(command.text for command in COMMANDS if command.text.startswith("udipdist gwas genotypes="))
    own_files.write_configurations(folder, _keys(shlex.split(gwas)))
    return folder


@pytest.fixture(scope="module")
def written() -> dict[Path, tuple[str, int]]:
    """Each output, and the page and block that made it."""
    return {}


def _keys(words: list[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words if "=" in word)


def _output(command: Command, words: list[str], place: Path) -> Path | None:
    """What the command makes anew."""
    if "--dry-run" in words or "--help" in words or command.verb == "inspect":
        return None
    given = {}
    for word in words:
        if word.endswith(".yaml") and "=" not in word:
            given = yaml.safe_load((place / word).read_text())
    given = given | _keys(words)
    name = given.get("run_dir") if "train" in words else given.get("out")
    return place / name if name else None


def _words(command: Command) -> list[str]:
    """What is typed: the command, with what the tables above say."""
    text = INSTEAD.get(command.text, command.text).replace(*FEWER_RANKS)
    for word, meant in MEANT.get(command.text, {}).items():
        text = re.sub(rf"\b{word}\b", meant, text)
    sizes = [size for start, size in SIZES.items() if text.startswith(start) and "--help" not in text]
    return shlex.split(" ".join([text, *sizes]))


def _run(words: list[str]) -> int:
    if words[0] == "udipdist":
        return warm.run("udipdist", words[1:], IMPORTS)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(words, env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}, check=False).returncode


@pytest.mark.parametrize(
    "command", [one for one in COMMANDS if one.text not in NOT_RUN], ids=lambda one: f"{one.page}: {one.text}"
)
def test_a_documented_command_works(command, place, written, monkeypatch):
    monkeypatch.chdir(place)
    words = _words(command)
    out = _output(command, words, place)
    here = (command.page, command.block)
    if out is not None and written.get(out, here) != here:  # shown elsewhere, with other words
        shutil.rmtree(out) if out.is_dir() else out.unlink()
    assert _run(words) == 0, shlex.join(words)
    if out is not None:
        written[out] = here
        for name in MAKES.get(command.verb, "").split():
            assert os.path.exists(os.path.normpath(out / name)), name  # OUT may be a file, or a prefix


def test_tables_name_documented_commands_only():
    texts = [command.text for command in COMMANDS]
    assert not [text for text in (*NOT_RUN, *INSTEAD, *MEANT) if text not in texts]
    assert not [start for start in SIZES if not any(text.startswith(start) for text in texts)]
    assert not set(MAKES) - {verb.name for verb in VERBS}


def test_no_command_of_a_page_is_overlooked():
    """Whatever the form: a verb of udipdist with a key, a configuration or an option is among the commands."""
    verbs = "|".join(verb.name for verb in VERBS)
    for page in PAGES:
        text = re.sub(r"\\\n\s*", " ", (ROOT / page).read_text(encoding="utf-8"))
        for found in re.findall(rf"udipdist (?:{verbs}) +(?:\w+=|\S+\.yaml|--)\S*", text):
            assert any(command.text.startswith(found.rstrip("`;)")) for command in COMMANDS), found


def test_a_new_command_is_noticed():
    page = "`udipdist loci sumstats=x out=y`, `udipdist loci`\n\n    udipdist gwas \\\n        a=1  # so\n    ls\n"
    assert [one.text for one in commands_of("P.md", page)] == ["udipdist loci sumstats=x out=y", "udipdist gwas a=1"]
