"""udipdist inspect: sweeps, their trials, looks and passes; what looks into networks left; comparisons of networks."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from hpc import parts
from hpc.files import publish_json, remove
from hpc.stage import Stage, manifest_path
from hpc.sweep.trials import fail
from udipdist.config import InspectConfig, PerturbConfig, RunConfig
from udipdist.inspection import outputs
from udipdist.inspection.verb import look
from udipdist.sweep import results

sys.path.insert(0, str(Path(__file__).parent))
import fake_sweep as fake


def seal(out: Path, stage: str, **facts) -> None:
    """The manifest of a finished output."""
    Stage(stage, out, {}).complete(out, InspectConfig(path=out), {}, facts)


def files(folder: Path, names: tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (folder / name).exists():
            (folder / name).write_text("{}\n")


def train(folder: Path) -> None:
    files(folder, ("config.yaml", "metrics.jsonl", "reconstructions.npz"))
    publish_json(folder / "provenance.json", {"starts": [{}]})
    (folder / "checkpoints").mkdir()
    seal(folder, "train")


def seal_look(place: Path) -> None:
    """All that stands beside the scores of a look."""
    for name in ("loci", "loci_multivariate"):
        files(place / name, outputs.LOCI)
        seal(place / name, "loci")
    files(place / "panel", outputs.PANEL)
    seal(place / "panel", "panel")
    if (place / "latents.parquet").exists():
        (place / "latents.pheno").write_text("FID IID\n" + "a a\n" * fake.PEOPLE)
        seal(place / "latents.parquet", "embed")


def finished_pass(out: Path, number: int) -> Path:
    place = out / "association" / f"pass-{number:04d}"
    publish_json(place / "requests.json", [{"name": "a-0000"}, {"name": "b-0000"}])
    publish_json(place / "done.json", {"tables": ["a-0000", "b-0000"], "seconds": {"gwas": 1.5, "loci": 0.5}})
    return place


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """Five trials, of which one failed."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    fake.whole(out)
    for place in out.glob("trials/*/epochs/*"):
        seal_look(place)
    for place in out.glob("trials/*/ended.json"):
        train(place.parent / "train")
    finished_pass(out, 1)
    results.write_tables(out)
    publish_json(out / "plan.json", {"sweep": {}})
    seal(out, "sweep", trials=5, failed=["step-seed3"], objective="loci")
    return out


@pytest.fixture
def sweep(original, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(original, tmp_path / "out"))


def state(path: Path) -> tuple[str, str, list[str]]:
    found = look(path, contents=True)
    return found.kind, found.state, found.problems


def test_a_sweep_is_complete_with_trials_that_were_allowed_to_fail(sweep):
    found = look(sweep, contents=True)
    assert (found.kind, found.state, found.problems) == ("sweep", "complete", [])
    assert found.facts["failed"] == ["step-seed3"] and found.facts["passes"] == 1
    assert found.facts["best"]["trial"] == "cosine-seed2" and found.facts["best"]["loci"] == 5
    assert {one.path.name: one.state for one in found.inside} == {
        "cosine-seed1": "complete", "cosine-seed2": "complete", "step-seed1": "complete", "step-seed2": "complete",
        "step-seed3": "unfinished",
    }  # fmt: skip
    json.dumps(found.tree())
    assert [one.kind for one in look(sweep.parent, contents=False).inside] == ["sweep"]


DAMAGES = [  # what is done to a sweep, what is said
    (lambda p: (p / "overlap.tsv").unlink(), "overlap.tsv is missing"),
    (lambda p: remove(p / "trials" / "step-seed1"), "trials/ holds 4 trials, and 5 were run"),
    (lambda p: remove(p / "trials/step-seed1/epochs/0002/panel"), "trials/step-seed1: epochs/0002: panel is missing"),
    (lambda p: (p / "trials/step-seed1/epochs/0002/loci/leadSNPs.txt").unlink(), "leadSNPs.txt is missing"),
    (lambda p: (p / "trials/step-seed1/epochs/0002/scores.json").write_text("{"), "scores.json is damaged"),
    (lambda p: (p / "trials/step-seed1/trial.json").write_text("{"), "trials/step-seed1: its record is damaged"),
    (lambda p: (p / "trials/step-seed1/ended.json").write_text("{"), "trials/step-seed1: its record is damaged"),
    (lambda p: remove(p / "trials/step-seed1/train"), "trials/step-seed1: train is missing"),
    (lambda p: (p / "sweep.json").write_text("[]"), "sweep.json is damaged"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=[message for _, message in DAMAGES])
def test_damage_to_a_sweep_is_told(damage, message, sweep):
    damage(sweep)
    kind, said, problems = state(sweep)
    assert (kind, said) == ("sweep", "damaged") and any(message in line for line in problems)


def test_a_sweep_that_goes_on(sweep):
    manifest_path(sweep).unlink()
    space = {"schedule.name": {"grid": ["step", "cosine"]}}
    (sweep / "config.yaml").write_text(fake.config(sweep, space=space, seeds=(1, 2, 3)).yaml())
    (finished_pass(sweep, 2) / "done.json").unlink()
    found = look(sweep, contents=False)
    assert (found.kind, found.state) == ("sweep", "unfinished")
    assert found.parts == {"done": 4, "total": 6, "unit": "trials"} and found.facts["last_written"]
    assert "4 of 6 trials" in found.text()
    problems = "\n".join(found.problems)
    assert found.first_problem.startswith("has no manifest: it is running, or was stopped")
    assert "trials/step-seed3: failed: out of <memory>" in problems and "association/pass-0002: has no done" in problems
    (sweep / "config.yaml").write_text("none: 1\n")
    assert look(sweep, contents=False).parts["total"] is None


def test_trials(sweep):
    trial = sweep / "trials" / "step-seed1"
    found = look(trial, contents=False)
    assert (found.kind, found.state) == ("trial of a sweep", "complete")
    assert (found.facts["ended"], found.facts["seed"]) == ("finished", 1)
    assert [one.kind for one in found.inside] == ["tested latents"] * 3 + ["training run"]
    (trial / "ended.json").unlink()
    assert state(trial)[2] == ["has not ended: it is running, or was stopped; the sweep's command continues it"]
    fail(trial, "Error", "no <disk>\nmore", "run")
    assert state(trial)[2] == ["failed: no <disk>; its log is log.txt; the sweep's command tries it again"]


def test_a_trial_that_the_search_stopped_need_not_have_been_trained_to_its_end(sweep):
    trial = sweep / "trials" / "step-seed1"
    publish_json(trial / "ended.json", {"state": "stopped"})
    manifest_path(trial / "train").unlink()
    publish_json(trial / "train" / "plan.json", {"train": {}})
    start = {"time": "2026-01-01T00:00:00+00:00", "host": "h", "command": ["udipdist"]}
    store = {"path": "gone.zarr"}
    publish_json(trial / "train" / "provenance.json", {"starts": [start], "store": store})
    (trial / "epochs" / "0004" / "scores.json").unlink()  # asked about, and not answered
    found = look(trial, contents=True)
    assert (found.state, found.problems) == ("complete", [])
    assert {one.path.name: one.state for one in found.inside} == {
        "0000": "complete", "0002": "complete", "0004": "unfinished", "train": "unfinished",
    }  # fmt: skip
    remove(trial / "epochs" / "0000" / "loci")
    assert state(trial)[1] == "damaged"


def test_looks(sweep):
    place = sweep / "trials" / "step-seed1" / "epochs" / "0002"
    found = look(place, contents=True)
    assert (found.kind, found.state, found.facts["loci"]) == ("tested latents", "complete", 2)
    publish_json(place / "scores.json", {"loci": 0, "variants": 0})
    for name in ("loci", "loci_multivariate", "panel"):
        remove(place / name)
    assert state(place)[1:] == ("complete", [])  # latents that are the same for everybody
    (place / "scores.json").unlink()
    assert state(place)[1:] == ("unfinished", ["has no scores.json: it has not been tested yet"])


def test_consensus(sweep):
    fake.look(sweep / "consensus", 0, [5], seed=1)
    place = (sweep / "consensus" / "0000").rename(sweep / "consensus" / "step")
    seal_look(place)
    seal(place / "latents.parquet", "consensus")
    assert state(place / "latents.parquet")[:2] == ("consensus phenotypes", "complete")
    assert [one.path.name for one in look(sweep, contents=False).inside][-1] == "step"
    (place / "latents.pheno").unlink()
    assert state(sweep)[1] == "damaged"


def test_passes(sweep):
    place = sweep / "association" / "pass-0001"
    found = look(place, contents=False)
    assert (found.kind, found.state) == ("pass of a sweep's association", "complete")
    assert found.facts == {"tables": ["a-0000", "b-0000"], "seconds": {"gwas": 1.5, "loci": 0.5}}
    (place / "done.json").unlink()
    assert state(place)[1] == "unfinished"
    (place / "requests.json").write_text('{"a": 1}')
    assert state(place)[1] == "damaged"


@pytest.mark.parametrize("stage", outputs.INTERPRET_TABLES)
def test_looks_into_a_network(stage, tmp_path):
    place = tmp_path / "made"
    files(place, (*outputs.INTERPRET_TABLES[stage], "picture.png"))
    seal(place, stage, subjects=20, captions={"picture.png": "What is seen."})
    assert state(place) == (outputs.KINDS[stage], "complete", [])
    for name in (outputs.INTERPRET_TABLES[stage][0], "picture.png"):
        (place / name).unlink()
        kind, said, problems = state(place)
        assert (kind, said) == (outputs.KINDS[stage], "damaged") and f"{name} is missing" in problems


def test_maps_that_are_being_made(tmp_path):
    place = tmp_path / "maps"
    parts.fix_plan(place, PerturbConfig(run_dir="vit", store="s.zarr", out=place).semantics())
    assert state(place)[:2] == ("perturbation maps", "unfinished")


def test_a_comparison_of_networks(tmp_path):
    (tmp_path / "networks" / "CNN").mkdir(parents=True)
    (tmp_path / "config.yaml").write_text(RunConfig(out=tmp_path, volumes="scans", genotypes="g").yaml())
    train(tmp_path / "networks" / "CNN" / "train")
    kind, said, problems = state(tmp_path)
    assert (kind, said) == ("comparison of networks", "unfinished")
    assert any(line.startswith("has no networks/networks.json") for line in problems)
    publish_json(tmp_path / "networks" / "networks.json", {"networks": [{"name": "ViT"}, {"name": "CNN"}]})
    assert look(tmp_path, contents=False).facts["networks"] == ["ViT", "CNN"]
    (tmp_path / "networks" / "networks.json").write_text("{")
    assert state(tmp_path)[1] == "damaged"


def test_maps_of_lead_snps_are_not_missed_where_there_is_no_locus(tmp_path):
    keys = {"volumes": "scans", "genotypes": "g", "interpret": True}
    (tmp_path / "config.yaml").write_text(RunConfig(out=tmp_path, **keys).yaml())
    files(tmp_path / "loci", outputs.LOCI)
    for count, missed in ((1, True), (0, False)):
        seal(tmp_path / "loci", "loci", n_loci=count)
        problems = look(tmp_path, contents=False).problems
        assert ("stage interpret snp has not been run" in problems) is missed
        assert "stage interpret perturb has not been run" in problems
