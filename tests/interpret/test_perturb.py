"""The verb on a small network: its maps are those of all decoded subjects at once; it goes on, refuses, and draws."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from scipy import ndimage, stats

from hpc import parts
from hpc.checkpoint import Checkpoints
from hpc.comm import Comm
from hpc.errors import ConfigError, InputError, OutputExists
from hpc.stage import manifest_path, read_manifest
from hpc.world import World
from udipdist.cli import main
from udipdist.config import IngestConfig, PerturbConfig, TrainConfig, VitAeConfig
from udipdist.interpret import atlas, montage
from udipdist.interpret import perturb as verb
from udipdist.interpret.network import open_network
from udipdist.interpret.perturb import map_path, perturb, preview, smoothed
from udipdist.models import registry
from udipdist.sumstats import store as sumstats
from udipdist.volumes.ingest import ingest

SHAPE, SUBJECTS = (16, 18, 16), 14
AFFINE = np.array([[12.0, 0, 0, -90], [0, 12, 0, -120], [0, 0, 12, -82], [0, 0, 0, 1]])
MODEL = {"patch": 4, "width": 24, "depth": 1, "decoder_depth": 1, "heads": 2, "latent": 6}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """store.zarr of balls, some larger than others; run, a network with random weights that bends what it decodes."""
    from safetensors.torch import save_file

    folder, rng = tmp_path_factory.mktemp("perturb"), np.random.default_rng(5)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))
    (folder / "nifti").mkdir()
    for i in range(SUBJECTS):
        ball = np.linalg.norm(grid, axis=0) < 0.7 + 0.15 * (i % 3 == 0)
        values = ball * (500 + 100 * np.tensordot(rng.standard_normal(3), grid, 1) + 30 * rng.standard_normal(SHAPE))
        nib.save(nib.Nifti1Image(values.astype(np.int16), AFFINE), folder / f"nifti/S{i:02d}.nii.gz")
    ingest(IngestConfig(volumes=folder / "nifti", out=folder / "store.zarr", workers=0))
    torch.manual_seed(0)
    config = TrainConfig(store=folder / "store.zarr", run_dir=folder / "run", model=VitAeConfig(**MODEL))
    network = registry.build(config.model, nib.load(folder / "nifti/S00.nii.gz").get_fdata() != 0)
    torch.nn.init.normal_(network.from_latent.weight, std=3.0)
    (folder / "run").mkdir()
    (folder / "run/config.yaml").write_text(config.yaml())
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    Checkpoints(folder / "run/checkpoints").save(
        Comm(World()), 0, lambda to: save_file(state, to / "weights.safetensors"), {}
    )
    return folder


def config(place: Path, out: Path, **keys) -> PerturbConfig:
    base = {"run_dir": place / "run", "store": place / "store.zarr", "out": out, "permutations": 760, "batch": 5}
    return PerturbConfig.parse({k: str(v) if isinstance(v, Path) else v for k, v in (base | keys).items()})


@pytest.fixture(scope="module")
def done(place, tmp_path_factory) -> PerturbConfig:
    made = config(place, tmp_path_factory.mktemp("done") / "out", latents=[4, 1, 0], controls=1, at_once=3, shift=2)
    perturb(made)
    return made


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures take most of the time."""
    monkeypatch.setattr(verb, "save", lambda figure, path: None)


def read(config: PerturbConfig, name: str, kind: str) -> nib.Nifti1Image:
    return nib.load(map_path(config.out, name, kind))


def in_memory(config: PerturbConfig, latent: int, sides: str = "plus") -> tuple[np.ndarray, np.ndarray]:
    """The published way: every decoded image of every subject kept, [N, x, y, z]."""
    opened = open_network(config)
    with torch.no_grad():
        z_NL = opened.network.encode(torch.from_numpy(opened.tokens.normalised(opened.rows)))
        step_L = torch.zeros(z_NL.shape[1])
        step_L[latent] = config.shift * z_NL[:, latent].double().std(correction=1)
        base = {"plus": z_NL, "minus": z_NL, "both": z_NL - step_L}[sides]
        moved = z_NL - step_L if sides == "minus" else z_NL + step_L
        return tuple(opened.network.volumes(opened.network.decode(z)).double().numpy() for z in (moved, base))


def half_have_brain(place: Path) -> np.ndarray:
    volumes = [nib.load(path).get_fdata() != 0 for path in sorted((place / "nifti").iterdir())]
    return np.mean(volumes, axis=0) >= 0.5


def test_the_maps_are_those_of_all_decoded_subjects_at_once(place, done):
    mask = half_have_brain(place) & (read(done, "z004", "mean").get_fdata() != 0)
    assert mask.sum() > 600
    for name, latent in (("z004", 4), ("z000", 0)):
        moved, plain = in_memory(done, latent)
        t = stats.ttest_rel(moved, plain).statistic
        np.testing.assert_allclose(
            read(done, name, "mean").get_fdata()[mask], (moved - plain).mean(0)[mask], rtol=1e-4, atol=1e-6
        )
        np.testing.assert_allclose(read(done, name, "t").get_fdata()[mask], t[mask], rtol=2e-3, atol=1e-3)
        assert (read(done, name, "t").get_fdata()[~half_have_brain(place)] == 0).all()


@pytest.mark.parametrize("sides", ["minus", "both"])
def test_the_other_side_and_both(place, tmp_path, undrawn, sides):
    made = config(place, tmp_path / "out", latents=1, sides=sides, atlas="none")
    perturb(made)
    moved, plain = in_memory(made, 1, sides)
    values = read(made, "z001", "mean").get_fdata()
    np.testing.assert_allclose(values[values != 0], (moved - plain).mean(0)[values != 0], rtol=1e-4, atol=1e-6)
    assert not (made.out / verb.REGIONS).exists()


def test_maps_have_the_affine_of_the_cohort(done):
    for kind in ("mean", "t", "smooth"):
        image = read(done, "z004", kind)
        np.testing.assert_array_equal(image.affine, AFFINE)
        assert image.shape == SHAPE and image.get_data_dtype() == np.float32


def test_smoothing_is_a_mean_over_the_brain_alone(place, done):
    mask = half_have_brain(place)
    np.testing.assert_allclose(smoothed(np.full(SHAPE, 3.0), mask, 20, (12, 12, 12))[mask], 3.0)
    t = np.abs(read(done, "z004", "t").get_fdata())
    sd = 3.0 / 12
    expected = ndimage.gaussian_filter(t * mask, sd, mode="constant") / ndimage.gaussian_filter(
        mask.astype(float), sd, mode="constant"
    ).clip(1e-9)
    np.testing.assert_allclose(read(done, "z004", "smooth").get_fdata()[mask], expected[mask], rtol=1e-5)
    np.testing.assert_array_equal(smoothed(t, mask, 0, (12, 12, 12)), t * mask)


def test_tables_and_pictures(done):
    table = pd.read_csv(done.out / verb.DIRECTIONS, sep="\t")
    assert table["name"].tolist() == ["z004", "z001", "z000", "control00"]
    assert table["kind"].tolist() == ["latent"] * 3 + ["control"]
    smooth = read(done, "z001", "smooth").get_fdata()
    peak = np.array(np.unravel_index(smooth.argmax(), SHAPE))
    np.testing.assert_allclose(table.loc[1, ["peak_x", "peak_y", "peak_z"]].astype(float), (AFFINE @ [*peak, 1])[:3])
    regions = pd.read_csv(done.out / verb.REGIONS, sep="\t")
    assert list(regions) == ["direction", "region", "voxels", "score", "p", "q"]
    assert regions["p"].between(1 / 761, 1).all()
    facts = read_manifest(done.out)["facts"]
    assert facts["subjects"] == SUBJECTS and facts["directions"] == 4
    assert list(facts["captions"]) == ["montage_01.png"] and "+2 SD" in facts["captions"]["montage_01.png"]
    assert "the 3 highest of the regions with q < 0.05" in facts["captions"]["montage_01.png"]
    assert "Reliability" not in facts["captions"]["montage_01.png"]
    assert (done.out / "montage_01.png").stat().st_size > 20_000 and (done.out / "montage_01.pdf").exists()


def test_batches_and_groups_do_not_change_the_maps(place, done, tmp_path, undrawn):
    other = config(place, tmp_path / "out", latents=[4, 1, 0], controls=1, at_once=1, batch=3, shift=2)
    perturb(other)
    for name in ("z004", "control00"):
        a, b = (read(c, name, "mean").get_fdata() for c in (done, other))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    regions = [pd.read_csv(c.out / verb.REGIONS, sep="\t") for c in (done, other)]
    assert regions[0].equals(regions[1]) or np.allclose(regions[0]["score"], regions[1]["score"], atol=0.02)


def test_what_was_killed_goes_on(place, done, tmp_path, monkeypatch, undrawn):
    keys = {"latents": [4, 1, 0], "controls": 1, "at_once": 3, "shift": 2}
    made = config(place, tmp_path / "out", **keys)
    real, calls = verb.moments_of, []

    def dies(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(verb, "moments_of", dies)
    with pytest.raises(KeyboardInterrupt):
        perturb(made)
    assert parts.marker(made.out, 0).exists() and read_manifest(made.out) is None
    perturb(made)
    assert len(calls) == 3  # the first group is not done again
    for path in (made.out / "maps").iterdir():
        assert path.read_bytes() == (done.out / "maps" / path.name).read_bytes()
    with pytest.raises(OutputExists):
        perturb(made)


def test_all_latents_where_nothing_is_asked_for(place, tmp_path, undrawn):
    made = config(place, tmp_path / "out", atlas="none", subjects=4)
    assert any("directions: 6;" in line for line in preview(made))
    perturb(made)
    assert len(pd.read_csv(made.out / verb.DIRECTIONS, sep="\t")) == 6
    assert read_manifest(made.out)["facts"]["subjects"] == 4


def test_no_latents_where_none_are_asked_for(place, tmp_path):
    for keys, count in (({"latents": [], "controls": 60}, 60), ({"controls": 2}, 8), ({"latents": "all"}, 6)):
        assert any(f"directions: {count};" in line for line in preview(config(place, tmp_path / "out", **keys)))
    with pytest.raises(ConfigError, match=r"latents: \[\] shows no latent, and nothing else is asked for"):
        config(place, tmp_path / "out", latents=[])


def test_as_many_permutations_as_a_region_needs(place, tmp_path, monkeypatch):
    opened = open_network(config(place, tmp_path / "out"))
    shipped = atlas.load("seitzman_2018", None, opened.store.shape, AFFINE)
    noise = np.random.default_rng(0).random(SHAPE)
    regions = len(atlas.rank([noise], opened.store.mask, (12, 12, 12), shipped, 1)[0])
    needed = atlas.enough(shipped, opened.store.mask)
    assert regions / (1 + needed) < atlas.SURE <= regions / needed
    assert f"random maps: {needed:,} a direction" in preview(config(place, tmp_path / "out", permutations=needed))
    assert "random maps: 1,000 a direction" in preview(config(place, tmp_path / "out", permutations=None))
    message = f"permutations={needed - 1}: no region of atlas=seitzman_2018.*type permutations={needed} or more"
    with pytest.raises(ConfigError, match=message):
        preview(config(place, tmp_path / "out", permutations=needed - 1))
    preview(config(place, tmp_path / "out", permutations=1, atlas="none"))
    seen = []
    monkeypatch.setattr(atlas, "rank", lambda *words: seen.append(words[4]) or [[] for _ in words[0]])
    monkeypatch.setattr(verb, "save", lambda figure, path: None)
    perturb(config(place, tmp_path / "default", permutations=None, latents=[0]))
    monkeypatch.setattr(atlas, "enough", lambda *_: 2000)
    perturb(config(place, tmp_path / "many", permutations=None, latents=[0]))
    assert seen == [1000, 2000]


def test_directions_and_probes_of_tables(place, tmp_path, undrawn):
    frame = pd.DataFrame(np.eye(6)[[2, 3]], columns=[f"z{k:03d}" for k in range(6)])
    frame.insert(0, "name", ["two", "three"])
    frame.to_csv(tmp_path / "rows.tsv", sep="\t", index=False)
    rows = tmp_path / "rows.tsv"
    made = config(place, tmp_path / "out", directions=rows, latents=[2], atlas="none")
    assert any("directions: 3;" in line for line in preview(made))
    perturb(made)
    np.testing.assert_array_equal(read(made, "two", "mean").get_fdata(), read(made, "z002", "mean").get_fdata())
    with pytest.raises(InputError, match="two directions are called three"):
        preview(config(place, tmp_path / "other", directions=rows, probe=rows))


def gwas(folder: Path, joint: np.ndarray) -> Path:
    """Of the six latents, with as many SNPs rs0, ... as there are -log10 p of the joint test."""
    m = len(joint)
    variants = pd.DataFrame(
        {"chrom": "1", "position": np.arange(1, m + 1), "snp": [f"rs{i}" for i in range(m)], "a1": "A", "a2": "G"}
    )
    folder.mkdir()
    sumstats.create(
        folder / sumstats.STORE, variants, [f"z{k:03d}" for k in range(6)], m, {"df": None, "n_samples": 99}
    )
    beta_MP, ones = np.random.default_rng(0).standard_normal((m, 6)), np.ones(m)
    block = sumstats.SumstatsBlock(beta_MP, 0 * beta_MP + 1, 99 * ones, 0.4 * ones, ones, ones, np.array(joint))
    sumstats.write(folder / sumstats.STORE, 0, block)
    manifest_path(folder).write_text(json.dumps({"id": "gwas-1", "config": {"normalise": "none"}}))
    return folder


def test_maps_of_snps_say_how_reliable_they_are(place, tmp_path, monkeypatch, undrawn):
    panels = []
    monkeypatch.setattr(montage, "montage", lambda shown, *_: panels.extend(shown))
    made = config(
        place, tmp_path / "out", snp=["rs0", "rs1"], latents=[3], atlas="none",
        sumstats=gwas(tmp_path / "gwas", [8.0, np.nan]),
    )  # fmt: skip
    perturb(made)
    table = pd.read_csv(made.out / verb.DIRECTIONS, sep="\t").set_index("name")
    assert table.loc["rs0", "reliability"] == pytest.approx(1 - 6 / stats.chi2.isf(1e-8, 6), rel=1e-5)
    assert table.loc[["rs1", "z003"], "reliability"].isna().all()
    assert [panel.what for panel in panels] == [
        ["a latent"],
        ["chr1:1 allele A", "reliability 0.88"],
        ["chr1:2 allele A"],
    ]
    assert "(chi2 - q) / chi2" in read_manifest(made.out)["facts"]["captions"]["montage_01.png"]


def test_an_atlas_of_another_space_is_refused_or_told(place, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(verb, "look", lambda *_: pytest.fail("brains were read"))
    image, moved = np.ones(SHAPE, np.int16), AFFINE.copy()
    for shift, name in ((500, "far.nii.gz"), (70, "near.nii.gz")):
        moved[0, 3] = AFFINE[0, 3] + shift
        nib.save(nib.Nifti1Image(image, moved), tmp_path / name)
    with pytest.raises(InputError, match="no region of the atlas has 3 voxels in the brain"):
        perturb(config(place, tmp_path / "out", atlas=tmp_path / "far.nii.gz"))
    assert not caplog.messages
    preview(config(place, tmp_path / "out", atlas=tmp_path / "near.nii.gz"))
    assert "% of its labelled voxels are brain in these volumes; is it in the same space?" in caplog.text
    caplog.clear()
    preview(config(place, tmp_path / "out"))
    assert not caplog.messages and not (tmp_path / "out").exists()


def test_slices_go_through_the_brain_where_most_changes():
    size, mask = np.zeros((9, 9, 9)), np.linalg.norm(np.indices((9, 9, 9)) - 4, axis=0) < 4.5
    size[2, 5, 6] = 3
    assert montage.fullest(size, mask) == [2, 5, 6]
    size[0] = 2 * mask[0]  # more, but along the surface
    assert montage.fullest(size, mask)[0] == 2


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"snp": ["rs1"]}, ConfigError, "sumstats: is needed"),
        ({"sumstats": "gwas"}, ConfigError, "needs SNPs to show"),
        ({"atlas_labels": "x.tsv"}, ConfigError, "has no effect with atlas=seitzman_2018"),
        ({"latents": [6]}, ConfigError, "the network has no 6"),
        ({"subjects": 1}, ConfigError, "subjects"),
        ({"atlas": "nowhere.nii.gz"}, InputError, "nowhere.nii.gz: does not exist"),
        ({"snp": ["rs1"], "sumstats": "nowhere"}, InputError, "nowhere: does not exist"),
        ({"population": "nowhere.parquet"}, InputError, "nowhere.parquet"),
    ],
)
def test_what_cannot_be_done_is_refused_before_a_brain_is_read(place, tmp_path, monkeypatch, keys, error, message):
    monkeypatch.setattr(verb, "look", lambda *_: pytest.fail("brains were read"))
    with pytest.raises(error, match=message):
        perturb(config(place, tmp_path / "out", **keys))
    assert not (tmp_path / "out").exists()


def test_the_command_line(place, tmp_path):
    words = [f"run_dir={place / 'run'}", f"store={place / 'store.zarr'}", f"out={tmp_path / 'out'}", "latents=[2, 5]"]
    told = CliRunner().invoke(main, ["interpret", "perturb", *words, "--dry-run"], catch_exceptions=False).output
    assert "latents:\n- 2\n- 5\n" in told and "# directions: 2; each decodes 14 brains" in told
    assert not (tmp_path / "out").exists()
