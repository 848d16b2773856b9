"""The association of a sweep: one pass over several tables finds what each would find alone; kills; thinning."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hpc.errors import ConfigError, InputError
from hpc.stage import read_manifest
from hpc.testing import call
from udipdist.config import GwasConfig, LociConfig, PanelConfig, VariantFilter
from udipdist.gwas.scan import verb as scan
from udipdist.loci import panel as panels
from udipdist.loci.verb import loci
from udipdist.sweep import configs
from udipdist.sweep.association import Association, Request, thinned
from udipdist.sweep.objective import Objective

sys.path.insert(0, str(Path(__file__).parent))
import small_study

CARRIED = {"a-0000": (0, 3, 8), "a-0002": (0, 1, 2, 3), "b-0000": ()}
KNOWN = {"epoch": 2, "step": 10, "val_loss": 0.5, "ssim": None}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return small_study.write(tmp_path_factory.mktemp("study") / "study")


def request(out: Path, name: str, carried=(), seed: int = 5, **keys) -> Request:
    trial, epoch = name.rsplit("-", 1)
    place = out / "trials" / trial / "epochs" / epoch
    return Request(name, str(small_study.latents(place / "latents.parquet", seed, carried)), str(place), KNOWN, **keys)


def requests(out: Path) -> list[Request]:
    return [request(out, name, carried, seed) for seed, (name, carried) in enumerate(CARRIED.items())]


@pytest.fixture(scope="module")
def tested(study, tmp_path_factory):
    """Three tables tested together, and their scores; do not change it."""
    config = small_study.config(study, tmp_path_factory.mktemp("tested") / "out", keep_sumstats=True)
    asked = requests(config.out)
    return config, asked, Association(config).handle(asked)


def test_one_pass_for_all(tested):
    config, asked, scores = tested
    (folder,) = config.out.glob("association/*")
    assert json.loads((folder / "done.json").read_text())["tables"] == list(CARRIED)
    assert len(read_manifest(folder / "gwas")["facts"]["tables"]) == 3
    assert [one["loci"] for one in scores] == [3, 4, 0]
    assert [one["multivariate_loci"] for one in scores] == [3, 4, 0]
    assert [one["panel_hits"] for one in scores] == [2, 1, 0]  # the panel has 0, 4, 8 ...
    for one, score in zip(asked, scores, strict=True):
        assert score == json.loads((Path(one.out) / "scores.json").read_text())
        assert {key: score[key] for key in KNOWN} == KNOWN
        assert score["variants"] == small_study.VARIANTS and score["screening"] is False


def test_what_is_found_is_what_the_verbs_find_in_the_table_alone(tested, tmp_path):
    config, asked, _ = tested
    for one in asked:
        alone = tmp_path / one.name
        gwas = {"genotypes": config.genotypes, "phenotypes": one.latents, "test": "linear", "out": alone / "gwas"}
        scan.gwas(GwasConfig.parse(gwas))
        for trait, name in (("minp", "loci"), ("multivariate", "loci_multivariate")):
            keys = {"sumstats": alone / "gwas", "genotypes": config.genotypes, "trait": trait, "out": alone / name}
            loci(LociConfig.parse(keys))
            expected = pd.read_parquet(alone / name / "loci.parquet")
            pd.testing.assert_frame_equal(pd.read_parquet(Path(one.out) / name / "loci.parquet"), expected, rtol=1e-5)
            facts, own = (read_manifest(place / name)["facts"] for place in (Path(one.out), alone))
            assert list(facts) == list(own) and facts["threshold_log10p"] == own["threshold_log10p"]
            in_both(Path(one.out) / name, alone / name)
        keys = config.stages["panel"] | {"loci": str(alone / "loci"), "out": str(alone / "panel"), "pool": 0}
        panels.panel(PanelConfig.parse(keys))
        found = json.loads((Path(one.out) / "panel" / "panel.json").read_text())
        assert found == json.loads((alone / "panel" / "panel.json").read_text())


def in_both(found: Path, expected: Path) -> None:
    """The folder of a look has every file that the verb writes, with the same values."""
    assert {path.name for path in found.iterdir()} == {path.name for path in expected.iterdir()}
    traits, own = (pd.read_parquet(folder / "locus_traits.parquet") for folder in (found, expected))
    pd.testing.assert_frame_equal(traits, own, rtol=1e-5)
    lambdas, own = (pd.read_csv(folder / "lambda_gc.tsv", sep="\t") for folder in (found, expected))
    pd.testing.assert_frame_equal(lambdas, own, rtol=1e-4)
    assert {f"z{j:03d}" for j in range(small_study.LATENTS)} <= set(lambdas.trait)


def test_what_has_its_scores_is_not_tested_again(tested, monkeypatch):
    config, asked, scores = tested
    monkeypatch.setattr(scan, "gwas", None)
    assert Association(config).handle(asked) == scores
    assert len(list(config.out.glob("association/*"))) == 1


def killed_at(folder: str, place: str) -> None:
    """Test three tables, and be killed as the second is to get its scores."""
    config, score = small_study.config(Path(folder), Path(place)), Association._score
    seen = []

    def dies(self, *arguments) -> None:
        if seen:
            os.kill(os.getpid(), signal.SIGKILL)
        seen.append(arguments)
        score(self, *arguments)

    Association._score = dies
    Association(config).handle(requests(config.out))


def test_a_killed_pass_is_ended_by_the_next_to_come(study, tmp_path, monkeypatch):
    config = small_study.config(study, tmp_path / "out")
    with pytest.raises(AssertionError):
        call(__file__, "killed_at", str(study), str(config.out))
    asked = [Request(n, "", str(config.out / "trials" / n[:1] / "epochs" / n[2:]), {}) for n in CARRIED]
    first = Path(asked[0].out) / "scores.json"
    before = first.stat().st_mtime_ns
    assert [one.scores is not None for one in asked] == [True, False, False]
    monkeypatch.setattr(scan, "gwas", None)  # its summary statistics are complete
    later = request(config.out, "a-0002", CARRIED["a-0002"], seed=1)
    (score,) = Association(config).handle([later])
    assert score["loci"] == 4 and score["epoch"] == KNOWN["epoch"]
    assert all(one.scores is not None for one in asked) and first.stat().st_mtime_ns == before
    (folder,) = config.out.glob("association/*")
    assert (folder / "done.json").exists() and not (folder / "gwas").exists() and not (folder / "tables").exists()


def test_latents_that_say_nothing(study, tmp_path):
    config = small_study.config(study, tmp_path / "out")
    some, none, mad = (request(config.out, name, (0, 3)) for name in ("a-0001", "b-0001", "c-0001"))
    for one, columns, value in ((some, ["z004"], 0.0), (none, slice("z000", "z005"), 1.0), (mad, ["z002"], np.nan)):
        table = pd.read_parquet(one.latents)
        table.loc[:, columns] = value
        table.to_parquet(one.latents, index=False)
    found, nothing, error = Association(config).handle([some, none, mad])
    assert (found["loci"], found["latents"], found["collapsed"]) == (2, 5, ["z004"])
    facts = read_manifest(Path(some.out) / "loci")["facts"]
    assert facts["threshold_log10p"] == pytest.approx(-np.log10(5e-8 / 6))  # six tests, though one says nothing
    assert (nothing["loci"], nothing["panel_hits"], nothing["variants"], nothing["latents"]) == (0, 0, 0, 0)
    assert isinstance(error, InputError) and "z002 have values that are not numbers" in str(error)
    assert mad.scores is None and not list(config.out.glob("association/*/requests.json.partial*"))


def test_screening_and_the_full_pass(study, tmp_path):
    config = small_study.config(study, tmp_path / "out", objective={"variants": 10})
    screened, full = request(config.out, "a-0001", (0, 3)), request(config.out, "full-0001", (0, 3), full=True)
    first, second = Association(config).handle([screened, full])
    assert (first["variants"], first["screening"], first["loci"]) == (10, True, 1)  # 3 is not among the ten
    assert (second["variants"], second["screening"], second["loci"]) == (40, False, 2)
    chosen = (config.out / "association" / "screened_variants.txt").read_text().split()
    assert chosen == [f"rs{round(i * 39 / 9)}" for i in range(10)]


def test_thinning_keeps_to_the_filters_and_to_ids_that_are_unique(study, tmp_path):
    keys = {"genotypes": study / "c"}
    (tmp_path / "no").write_text("rs0\nrs39\n")
    assert thinned(VariantFilter.parse(keys | {"exclude": tmp_path / "no"}), 2) == ["rs1", "rs38"]
    assert len(thinned(VariantFilter.parse(keys), 1000)) == 40
    for suffix in ("bed", "fam"):
        (tmp_path / f"d.{suffix}").write_bytes((study / f"c.{suffix}").read_bytes())
    lines = (study / "c.bim").read_text().replace("rs1\t", "rs0\t")
    (tmp_path / "d.bim").write_text(lines)
    assert thinned(VariantFilter.parse(keys | {"genotypes": tmp_path / "d"}), 2) == ["rs2", "rs39"]
    (tmp_path / "d.bim").write_text("".join(f"1\t.\t0\t{i + 1}\tA\tC\n" for i in range(40)))
    with pytest.raises(InputError, match="no variant has its own id"):
        thinned(VariantFilter.parse(keys | {"genotypes": tmp_path / "d"}), 2)


def test_worth():
    scores = {"loci": 3, "multivariate_loci": 5, "panel_hits": 2, "val_loss": 0.25, "ssim": None}

    def of(score) -> Objective:
        return Objective.of(small_study.config(Path("s"), Path("o"), objective={"score": score}).objective)

    assert [of(name).value(scores) for name in ("loci", "val_loss", "ssim")] == [3, -0.25, None]
    assert of({"loci": 1, "val_loss": -8}).value(scores) == 1 and of({"loci": 1, "ssim": 1}).value(scores) is None
    assert of("val_loss").name == "-val_loss" and of({"loci": 1, "panel_hits": 0.5}).name == "1 loci + 0.5 panel_hits"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"space": {"optim.rl": {"grid": [1]}}}, "train.optim.rl: unknown key; did you mean optim.lr"),
        ({"space": {"model.width": {"choice": [96, -1]}}}, "train.model.width=-1: input should be greater than 0"),
        ({"space": {"seed": {"grid": [1, 2]}}}, "seed: is set by the sweep .seeds="),
        ({"train": {"run_dir": "x"}}, "run_dir: is set by the sweep"),
        ({"train": {"epohcs": 3}}, "train.epohcs: unknown key; did you mean epochs"),
        ({"stages": {"gwass": {}}}, "stages.gwass: unknown stage; the stages are embed, gwas, loci, panel"),
        ({"stages": {"loci": {"r3": 1}}}, "stages.loci.r3: unknown key"),
        ({"stages": {"gwas": {"min_mfa": 0.1}}}, "stages.gwas.min_mfa: unknown key; did you mean min_maf"),
        ({"stages": {"gwas": {"phenotypes": "x"}}}, "stages.gwas.phenotypes: unknown key"),
        ({"stages": {"gwas": {"test": "mixed"}}}, "stages.gwas.sparse_grm: is required by test=mixed"),
        ({"seeds": [1, 1]}, "is empty, or names a seed twice"),
        ({"objective": {"score": "lots"}}, "objective.score"),
        ({"objective": {"score": {"loci": 0}}}, "needs weights other than 0"),
        ({"objective": {"score": "ssim"}, "train": {"validation": 0}}, "objective.score=ssim: needs held-out subjects"),
        (
            {"search": {"algorithm": "pbt"}, "space": {"model.width": {"choice": [1, 2]}}},
            "space.model.width: cannot vary with search.algorithm=pbt",
        ),
    ],
)
def test_mistakes_are_told_before_the_first_trial(study, tmp_path, keys, message):
    with pytest.raises(ConfigError, match=message):
        configs.check(small_study.config(study, tmp_path / "out", **keys))


def test_missing_inputs_are_told_before_the_first_trial(study, tmp_path):
    with pytest.raises(InputError, match="store.zarr"):
        configs.check(small_study.config(study, tmp_path / "out"))
    with pytest.raises(InputError, match="nowhere"):
        configs.check(small_study.config(study, tmp_path / "out", genotypes=str(tmp_path / "nowhere")))
