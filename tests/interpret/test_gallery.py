"""The gallery: walks are where they should be, figures are those of numpy, the worst is shown beside the best."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from hpc.errors import ConfigError
from hpc.stage import read_manifest
from udipdist.config import GalleryConfig
from udipdist.interpret.gallery import gallery, plan_walks, preview, spread
from udipdist.interpret.network import open_network, survey


def latents(n: int = 40) -> np.ndarray:
    """Correlated latents [n, 5] with a mean."""
    rng = np.random.default_rng(2)
    return 3 + rng.standard_normal((n, 5)) @ rng.standard_normal((5, 5))


def config(tiny, **keys) -> GalleryConfig:
    return GalleryConfig(**(tiny.keys | keys))


def test_walks_along_latents(tiny):
    values = latents()
    walks = plan_walks(values, config(tiny, latents=[3, 0], reach=2.0, steps=5))
    assert walks.names == ["z003", "z000"] and walks.at.tolist() == [-2, -1, 0, 1, 2]
    moved = walks.latents - values.mean(axis=0)
    np.testing.assert_allclose(moved[0, :, 3], walks.at * values[:, 3].std(ddof=1))
    np.testing.assert_allclose(moved[:, 2], 0, atol=1e-12)
    np.testing.assert_array_equal(np.abs(moved).max(axis=1) > 1e-9, [[0, 0, 0, 1, 0], [1, 0, 0, 0, 0]])


def test_walks_along_components(tiny):
    values = latents()
    walks = plan_walks(values, config(tiny, basis="components", top=5, steps=3, reach=1.0))
    steps = walks.latents[:, 2] - values.mean(axis=0)
    eigenvalues, vectors = np.linalg.eigh(np.cov(values.T))
    np.testing.assert_allclose(walks.sd**2, eigenvalues[::-1])
    np.testing.assert_allclose(np.abs(steps @ vectors[:, ::-1]), np.diag(walks.sd), atol=1e-9)
    assert (np.take_along_axis(steps, np.abs(steps).argmax(axis=1)[:, None], axis=1) > 0).all()
    assert walks.names[0] == "pc000"


def test_a_latent_that_does_not_vary_cannot_be_walked(tiny):
    values = latents()
    values[:, 2] = 1.0
    with pytest.raises(ConfigError, match="z002 is the same for every subject"):
        plan_walks(values, config(tiny, latents=[0, 2]))


def test_subjects_shown_span_the_errors():
    error = np.array([5.0, 1.0, 4.0, 2.0, 3.0])
    assert error[spread(error, 3)].tolist() == [1, 3, 5]
    assert error[spread(error, 9)].tolist() == [1, 2, 3, 4, 5]
    assert error[spread(error, 1)].tolist() == [1]


@pytest.mark.parametrize("batch", [3, 16])
def test_the_verb(tiny, batch):
    asked = config(tiny, subjects=3, latents=[5, 1], steps=3, batch=batch)
    gallery(asked)
    opened = open_network(asked)
    table = pd.read_csv(tiny.out / "subjects.tsv", sep="\t")
    assert table["IID"].tolist() == [opened.store.subjects[row] for row in opened.rows]
    prepared = torch.from_numpy(opened.tokens.normalised(opened.rows))
    volumes = opened.network.volumes(prepared).numpy()
    with torch.no_grad():
        made = opened.network.volumes(opened.network(prepared).reconstruction).numpy()
    for i, row in table.iterrows():
        a, b = volumes[i][volumes[i] != 0], made[i][volumes[i] != 0]
        np.testing.assert_allclose(row["rmse"], np.sqrt(np.mean((a - b) ** 2)), rtol=1e-4)
        np.testing.assert_allclose(row["r"], np.corrcoef(a, b)[0, 1], atol=1e-4)
    facts = read_manifest(tiny.out)["facts"]
    assert facts["walks"] == ["z005", "z001"] and abs(facts["rmse"] - table["rmse"].mean()) < 1e-4
    codes = survey(opened, opened.rows, 8).latents_NL.double().numpy()
    with torch.no_grad():
        ends = np.tile(codes.mean(axis=0), (2, 1))
        ends[:, 5] += [-3 * codes[:, 5].std(ddof=1), 3 * codes[:, 5].std(ddof=1)]
        decoded = opened.network.volumes(opened.network.decode(torch.from_numpy(ends).float())).numpy()
    change = np.asarray(nib.load(tiny.out / "changes" / "z005.nii.gz").dataobj)
    np.testing.assert_allclose(change, (decoded[1] - decoded[0]) * ((volumes != 0).mean(axis=0) >= 0.5), atol=1e-5)
    walks = pd.read_csv(tiny.out / "walks.tsv", sep="\t")
    assert walks["sd"].tolist() == [-3, 0, 3] * 2 and (walks["change"] > 0).tolist() == [True, False, True] * 2
    for name in ("reconstructions", "walks"):
        assert np.asarray(Image.open(tiny.out / f"{name}.png").convert("L"), float).std() > 5
        assert (tiny.out / f"{name}.pdf").read_bytes()[:5] == b"%PDF-"
    assert set(facts["captions"]) == {"reconstructions.png", "walks.png"}


def test_preview(tiny):
    text = "\n".join(preview(config(tiny, top=2)))
    assert "sample: 8 of 8 subjects" in text and "walks: 2 latents, 7 steps to 3 SD" in text and not tiny.out.exists()
