"""The tables of a sweep, against numbers worked out by hand; its page; what is refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hpc.errors import ConfigError, InputError
from udipdist.config import EmbedConfig, LociConfig, TrainConfig
from udipdist.sweep import agreement, results, table
from udipdist.sweep.folder import SweepFolder

sys.path.insert(0, str(Path(__file__).parent))
import fake_sweep as fake


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A whole sweep with its tables; do not change it."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    fake.whole(out)
    results.write_tables(out)
    return out


def read(out: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(out / f"{name}.tsv", sep="\t")


def test_table1_holds_the_best_across_epochs_and_replicates_and_their_spread(written):
    rows = read(written, "table1").set_index("configuration")
    assert list(rows.index) == ["cosine", "step", "untrained"]  # the best first, the floor last
    cosine, step, floor = (rows.loc[name] for name in rows.index)
    assert (cosine["loci"], cosine["epoch"], cosine["trial"], cosine["panel_hits"]) == (5, 3, "cosine-seed2", 2)
    assert (cosine["loci_mean"], cosine["loci_min"], cosine["loci_max"]) == (4.5, 4, 5)
    assert cosine["loci_sd"] == pytest.approx(np.sqrt(0.5), rel=1e-5)
    assert (cosine["loci_union"], cosine["loci_in_all"]) == (6, 3)
    assert (step["loci"], step["epoch"], step["replicates"], step["failed"]) == (3, 4, 2, 1)
    assert (step["val_loss"], step["ssim"], step["untrained_loci"]) == (0.2, 0.5, 1)
    assert step["multivariate_loci"] == 2
    assert (cosine["schedule.name"], cosine["global_batch"], step["schedule.name"]) == ("cosine", 16, "step")
    # The schedule is no part of the untrained network: one for each seed, looked at with the same result.
    assert (floor["kind"], floor["loci"], floor["replicates"]) == ("untrained", 1, 2)


def test_table1_as_markdown_shows_the_same(written):
    text = (written / "table1.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| cosine"))
    assert [cell.strip() for cell in line.split("|")[1:-1]] == [
        "cosine", "cosine", "16", "2", "0.2000", "0.500", "5", "4.5 \u00b1 0.7 (4\u20135)", "3", "2", "3", "1",
    ]  # fmt: skip
    assert "Sorted by loci" in text


def test_curves_have_a_row_a_look(written):
    rows = read(written, "curves")
    assert len(rows) == 11
    assert rows.set_index(["trial", "epoch"]).loc[("cosine-seed1", 3), "loci"] == 4


def test_overlap_of_replicates_and_of_the_best_of_configurations(written):
    rows = read(written, "overlap")
    rows = rows[rows["analysis"] == "loci"].set_index(["kind", "trial_a", "trial_b"])
    assert len(rows) == 4
    # 5 10 20 40 50 and 5 10 20 30: three of six; step-seed2 is chosen by epoch 2 (5, 11), which has more loci than 4
    pair = rows.loc[("replicates", "cosine-seed2", "cosine-seed1")]
    assert (pair["n_a"], pair["n_b"], pair["shared"], pair["union"], pair["jaccard"]) == (5, 4, 3, 6, 0.5)
    pair = rows.loc[("replicates", "step-seed1", "step-seed2")]
    assert (pair["epoch_b"], pair["shared"], pair["union"]) == (2, 1, 4)
    pair = rows.loc[("configurations", "cosine-seed2", "step-seed1")]
    assert (pair["jaccard"], pair["jaccard_bp"]) == (0.6, 0.6)
    pair = rows.loc[("untrained", "step-seed1", "step-seed2")]  # those of the other schedule are the same networks
    assert (pair["n_a"], pair["n_b"], pair["shared"], pair["union"]) == (1, 1, 0, 2)


def test_the_objective_chooses_the_look_the_trial_and_the_order(tmp_path):
    fake.whole(tmp_path / "out")
    text = fake.config(tmp_path / "out", objective={"score": "val_loss"}).yaml()
    (tmp_path / "out" / "config.yaml").write_text(text)
    sweep = SweepFolder.open(tmp_path / "out")
    assert [look.epoch for look in sweep.chosen()] == [4, 4, 3, 4]  # the later, the lower the loss
    facts = json.loads((results.write_tables(tmp_path / "out") and tmp_path / "out" / "sweep.json").read_text())
    assert (facts["best"]["trial"], facts["best"]["epoch"]) == ("step-seed1", 4)  # 0.2 twice: the one with more loci
    assert facts["best"]["value"] == -0.2
    assert read(tmp_path / "out", "table1")["loci"].tolist() == [3, 5, 1]  # still the most loci of each


def test_screening_and_full_pass_are_never_mixed(tmp_path):
    out = tmp_path / "out"
    fake.begin(out, objective={"variants": 10})
    for number, name in enumerate(("step", "cosine")):
        for seed in (1, 2):
            made = fake.trial(out, 2 * number + seed, name, seed)
            loci = [1, 2, 3] if name == "step" else [1, 2]
            fake.look(made.folder / "epochs", 1, loci, seed=number + seed, screening=True)
    fake.look(out / "full" / "cosine-seed1", 1, [1, 2, 3, 4, 5, 6], variants=10_000)
    rows = table.table1(SweepFolder.open(out)).set_index(["pass", "configuration"])
    assert list(rows.index) == [("full", "cosine"), ("screening", "step"), ("screening", "cosine")]
    assert rows["loci"].tolist() == [6, 3, 2]
    assert rows["replicates"].tolist() == [1, 2, 2]
    pairs = agreement.overlaps(SweepFolder.open(out))
    assert set(pairs["pass"]) == {"screening"}  # of the full pass there is only one trial
    results.write_tables(out)
    assert json.loads((out / "sweep.json").read_text())["best"]["trial"] == "cosine-seed1"


def test_scores_that_were_not_measured_stay_unknown(tmp_path):
    out = tmp_path / "out"
    fake.begin(out)
    made = fake.trial(out, 0, "only", 1)
    fake.look(made.folder / "epochs", 1, [1], seed=1, val_loss=None, ssim=float("nan"), panel_hits=None)
    results.write_tables(out)
    row = read(out, "table1").iloc[0]
    assert row["loci"] == 1
    assert row[["val_loss", "ssim", "panel_hits", "loci_sd", "untrained_loci"]].isna().all()
    assert "| \u2013 |" in (out / "table1.md").read_text()


def test_a_sweep_of_which_every_trial_failed_has_its_tables(tmp_path):
    out = tmp_path / "out"
    fake.begin(out)
    fake.trial(out, 0, "step", 1, "failed")
    results.write_tables(out)
    row = read(out, "table1").iloc[0]
    assert (row["configuration"], row["failed"], row["replicates"]) == ("step", 1, 0)
    assert json.loads((out / "sweep.json").read_text())["best"] is None
    assert not (out / "best.sh").exists()


def test_latents_that_were_not_tested_have_no_loci(tmp_path):
    out = tmp_path / "out"
    fake.begin(out)
    for seed, places in ((1, [1, 2]), (2, [])):
        made = fake.trial(out, seed, "only", seed)
        place = fake.look(made.folder / "epochs", 1, places, seed=seed, variants=1000 * len(places))
    shutil.rmtree(place / "loci")
    shutil.rmtree(place / "loci_multivariate")
    results.write_tables(out)
    row = read(out, "overlap").iloc[0]
    assert (row["n_a"], row["n_b"], row["jaccard"]) == (2, 0, 0.0)


def test_best_sh_names_every_stage_with_the_values_of_the_best_trial(written):
    script = (written / "best.sh").read_text()
    assert subprocess.run(["sh", "-n", str(written / "best.sh")], check=False).returncode == 0
    verbs = re.findall(r"-m udipdist (\w+) \S+/best/(\w+)\.yaml", script)
    assert [recipe for _, recipe in verbs] == ["train", "embed", "gwas", "loci", "loci_multivariate", "panel"]
    train = TrainConfig.load(written / "best" / "train.yaml")
    assert (train.schedule.name, train.global_batch, train.seed) == ("cosine", 16, 2)
    embed = EmbedConfig.load(written / "best" / "embed.yaml", ["run_dir=a b/train", "out=c.parquet"])
    assert (embed.checkpoint, embed.run_dir) == ("30", Path("a b/train"))


def test_best_sh_leaves_out_latents_that_were_not_tested(tmp_path):
    out = tmp_path / "out"
    fake.begin(out)
    made = fake.trial(out, 0, "only", 1)
    place = fake.look(made.folder / "epochs", 1, [1], seed=1, collapsed=["z001", "z002"])
    results.write_tables(out)
    drop = next(line for line in (out / "best.sh").read_text().splitlines() if " -c " in line)
    shutil.copy(place / "latents.parquet", tmp_path / "latents.parquet")
    subprocess.run(["sh", "-c", f"python={sys.executable}; out={tmp_path}; {drop}"], check=True)
    assert list(pd.read_parquet(tmp_path / "latents.parquet")) == ["FID", "IID", "z000", "z003"]
    assert LociConfig.load(out / "best" / "loci.yaml").tests == 4  # which they count among
    assert LociConfig.load(out / "best" / "loci_multivariate.yaml").tests is None


def test_best_sh_starts_the_ranks_of_a_trial(tmp_path):
    out = tmp_path / "out"
    fake.whole(out)
    (out / "config.yaml").write_text(fake.config(out, ray={"ranks": 2}, seeds=[1, 2]).yaml())
    results.write_tables(out)
    assert "-m hpc.torchrun --standalone --nproc-per-node=2 -m udipdist train" in (out / "best.sh").read_text()


def test_the_same_files_give_the_same_tables(written, tmp_path):
    fake.whole(tmp_path / "out")
    results.write_tables(tmp_path / "out")
    results.write_tables(tmp_path / "out")  # over what is there
    for name in ("table1.tsv", "table1.md", "curves.tsv", "overlap.tsv", "similarity.tsv"):
        assert (written / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_a_score_that_is_no_number_is_named(tmp_path):
    out = tmp_path / "out"
    fake.begin(out)
    made = fake.trial(out, 0, "step", 1)
    fake.look(made.folder / "epochs", 1, [1], seed=1, loci="many")
    with pytest.raises(InputError, match=r"0001/scores.json: loci='many' is not a number"):
        results.write_tables(out)


def test_a_look_without_its_loci_is_named(tmp_path):
    out = tmp_path / "out"
    fake.whole(out)
    (out / "trials" / "step-seed1" / "epochs" / "0004" / "loci" / "loci.parquet").unlink()
    with pytest.raises(InputError, match=r"step-seed1.*loci.parquet: cannot be read"):
        results.write_tables(out)


def test_a_folder_that_is_no_sweep_is_refused(tmp_path):
    with pytest.raises((InputError, ConfigError), match="udipdist sweep"):
        results.write_tables(tmp_path)
