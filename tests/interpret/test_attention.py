"""A toy transformer whose attention is known: who looks at whom, which tokens are spotlights, what its heads compare.

64 tokens of 2 x 2 x 2 voxels. The brightest voxel of a patch says what the token is: 48 audience tokens, 6 that head 1
of the first layer looks at, in mirrored pairs, 6 that head 2 looks at, all on the left, and 4 that nobody looks at.
"""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import image as images
from matplotlib.figure import Figure
from scipy.special import softmax
from torch.utils._python_dispatch import TorchDispatchMode

from hpc.checkpoint import Checkpoints
from hpc.comm import Comm
from hpc.errors import ConfigError, InputError, OutputExists
from hpc.world import World
from udipdist.config import AttentionConfig, IngestConfig, TrainConfig, VitAeConfig
from udipdist.interpret import attention as verb
from udipdist.interpret import attention_maps, attention_pictures
from udipdist.interpret.attention import attention, preview
from udipdist.interpret.attention_maps import Plan, Tally, sequences
from udipdist.interpret.attention_tables import Seen, heads_table, layers_table, tokens_table
from udipdist.interpret.circuits import circuits
from udipdist.interpret.spotlight import Rule
from udipdist.interpret.symmetry import centres, mirrored, partners
from udipdist.models import registry
from udipdist.models.base import WEIGHTS, Autoencoder, Network
from udipdist.models.layers.tokens import WHOLE_GRID, Patcher
from udipdist.models.zoo.vit_udip import PublishedVit
from udipdist.volumes.ingest import ingest

AFFINE = np.array([[20.0, 0, 0, -70], [0, 20, 0, -80], [0, 0, 20, -60], [0, 0, 0, 1]])
MODEL = {"patch": 2, "width": 24, "depth": 2, "heads": 2, "mlp_ratio": 1.0, "latent": 8}
SCALE = 2.0  # of the planted product W_K' W_Q
WIDTH = MODEL["width"]


def kinds() -> np.ndarray:
    """What each token of the 4 x 4 x 4 grid is, [64]: 0 audience, 1 and 2 spotlights of heads 1 and 2, 3 neither."""
    kind = np.zeros((4, 4, 4), int)
    for y, z in ((0, 1), (2, 2), (3, 0)):
        kind[1, y, z] = kind[2, y, z] = 1
    for x, y, z in ((0, 0, 0), (1, 1, 1), (0, 2, 0), (1, 3, 3), (0, 3, 1), (1, 2, 3)):
        kind[x, y, z] = 2
    for x, y, z in ((0, 1, 3), (3, 1, 0), (2, 3, 2), (3, 3, 3)):
        kind[x, y, z] = 3
    return kind.ravel()


def directions() -> np.ndarray:
    """Orthonormal directions of the width without a mean [8, 24], one for each voxel of a patch."""
    steps = (np.arange(WIDTH) + 0.5) / WIDTH
    return np.sqrt(2 / WIDTH) * np.cos(np.pi * np.arange(1, 9)[:, None] * steps)


def volume(rng: np.random.Generator, missing: int = 0) -> np.ndarray:
    """One subject [8, 8, 8]; the last `missing` tokens are empty."""
    patches_TV = rng.integers(90, 111, (64, 8))
    patches_TV[np.arange(64), kinds()] = 1000
    patches_TV[64 - missing :] = 0
    return patches_TV.reshape(4, 4, 4, 2, 2, 2).transpose(0, 3, 1, 4, 2, 5).reshape(8, 8, 8)


def planted(seed: int = 0, **keys) -> Autoencoder:
    """The toy: its first layer planted, all else random."""
    torch.manual_seed(seed)
    network = registry.build(VitAeConfig(**{**MODEL, **keys}), np.ones((8, 8, 8), bool)).eval().requires_grad_(False)
    base, attention_ = torch.from_numpy(directions()).float(), network.encoder.blocks[0].attention
    network.embed.weight.copy_(30 * (base - base.mean(dim=0)).T)
    network.embed.bias.zero_()
    weight = attention_.qkv.weight.view(3, 2, WIDTH // 2, WIDTH)
    weight[:2] = 0
    for head in (0, 1):
        weight[0, head, 0] = SCALE**0.5 * base[0]  # the audience asks
        weight[1, head, 0] = SCALE**0.5 * base[1 + head]
    attention_.qkv.bias.zero_()
    return network


def prepared(network: Autoencoder, subjects: int = 6, missing: int = 4) -> torch.Tensor:
    """Subjects [B, T, V]; number 2 lacks `missing` tokens."""
    rng = np.random.default_rng(5)
    volumes = np.stack([volume(rng, missing if i == 2 else 0) for i in range(subjects)]).astype(np.float32)
    z = (volumes - 230) / 310
    return network.prepare(torch.from_numpy(np.where(volumes == 0, 0, z)).float())


def tallied(network: Autoencoder, tokens: torch.Tensor, pairings: int = 20, **keys) -> Tally:
    pairs = mirrored(network.patcher, AFFINE, np.ones(64, bool))
    table = partners(pairs, 64, pairings, np.random.default_rng(0))
    plan = Plan(**{"layers": (0, 1), "rule": Rule(), "partners_TR": table, "drawn": 0, "heads": (0, 1)} | keys)
    tally = Tally(plan, network.encoder, network.patcher.tokens)
    with torch.no_grad():
        for subject in sequences(network, tokens):
            tally.add(subject)
    return tally


def seen_of(network: Autoencoder, **keys) -> Seen:
    tally = tallied(network, prepared(network), **keys)
    return Seen(tally, mirrored(network.patcher, AFFINE, tally.seen.sum(axis=0) > 3))


def exact_maps(block, x_nD: torch.Tensor) -> np.ndarray:
    """The softmax maps [H, n, n] of a layer from its weights, in float64 numpy, one head at a time."""
    x = x_nD.double().numpy()
    x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + block.norm_attention.eps)
    x = x * block.norm_attention.weight.double().numpy() + block.norm_attention.bias.double().numpy()
    heads, d = block.attention.heads, x.shape[1] // block.attention.heads
    q, k, _ = np.split(x @ block.attention.qkv.weight.double().numpy().T + block.attention.qkv.bias.numpy(), 3, axis=1)
    parts = [slice(h * d, (h + 1) * d) for h in range(heads)]
    return np.stack([softmax(q[:, part] @ k[:, part].T / np.sqrt(d), axis=1) for part in parts])


@pytest.mark.parametrize("keys", [{"pool": "mean"}, {"pool": "attention"}, {"pool": "cls"}])
def test_the_pass_is_that_of_encode(keys):
    network = planted(**keys)
    tokens = prepared(network)
    for b, subject in enumerate(sequences(network, tokens)):
        assert len(subject.index_n) == (60 if b == 2 else 64) and subject.front == (keys["pool"] == "cls")
        assert float(subject.weight_n.sum()) == pytest.approx(1, abs=1e-6)
        x = subject.inputs[1][None]
        encoded = network.encoder.norm(network.encoder.blocks[1](x, None))[0]
        if keys["pool"] != "attention":  # whose heads weigh channels apart
            pooled = subject.weight_n @ encoded
            torch.testing.assert_close(
                network.to_latent(pooled), network.encode(tokens[b : b + 1])[0], rtol=1e-4, atol=1e-5
            )


def test_the_published_network_is_read_as_it_encodes():
    network = PublishedVit(Patcher(np.ones((8, 8, 8), bool), (2, 2, 2), WHOLE_GRID), 24, 2, 12, 1, 2, 2.0).eval()
    tokens = prepared(network)
    tokens[:, 7] = 0  # empty in the whole batch, so not a token
    with torch.no_grad():
        subjects = list(sequences(network, tokens))
        latents = network.encode(tokens)
        for subject, latent in zip(subjects, latents, strict=True):
            assert 7 not in subject.index_n and len(subject.index_n) == 63
            encoded = network.encoder.norm(network.encoder.blocks[1](subject.inputs[1][None], None))[0]
            torch.testing.assert_close(subject.weight_n @ encoded, latent, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", ["mean", "cls"])
@pytest.mark.parametrize("at_once", [2**22, 300])
def test_sums_are_those_of_whole_maps(monkeypatch, pool, at_once):
    monkeypatch.setattr(attention_maps, "_AT_ONCE", at_once)
    network = planted(pool=pool)
    tokens = prepared(network)
    tally = tallied(network, tokens, rollout=True)
    subjects, front = list(sequences(network, tokens)), int(pool == "cls")
    received, mapped, rolled = np.zeros((2, 2, 64)), np.zeros((2, 64, 64)), np.zeros(64)
    measures, looked, counts = np.zeros((5, 2, 2)), np.zeros((2, 2, 21)), np.zeros(21)
    for subject in subjects:
        maps = [exact_maps(b, x) for b, x in zip(network.encoder.blocks, subject.inputs, strict=True)]
        n, index = maps[0].shape[1], subject.index_n
        row = subject.weight_n.double().numpy()
        for map_HTT in reversed(maps):
            row = row @ (0.5 * np.eye(n) + 0.5 * map_HTT.mean(axis=0))
        rolled[index] += row[front:] * n
        for layer, map_HTT in enumerate(maps):
            received[layer][:, index] += map_HTT[:, :, front:].mean(axis=1) * n
            entropy = -(map_HTT * np.log(map_HTT)).sum(axis=2)
            top = np.sort(map_HTT, axis=2)[:, :, ::-1]
            tenth = top[:, :, : round(0.1 * n)].sum(axis=2)
            own = (entropy, np.exp(entropy), top[:, :, 0], tenth, np.full_like(entropy, np.log(n)))
            measures[:, layer] += np.stack([m.mean(axis=1) for m in own])
            whole = np.zeros((2, 64, 64))
            whole[:, index[:, None], index] = map_HTT[:, front:, front:] * n
            mapped += 0 if layer else whole / n
            for column in range(21):
                for query, key in enumerate(tally.plan.partners_TR[:, column]):
                    if query in index and key in index:
                        looked[layer, :, column] += whole[:, query, key]
                        counts[column] += not layer
    np.testing.assert_allclose(tally.received.sum(axis=0), received, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(tally.measures[0], measures, rtol=1e-4)
    np.testing.assert_allclose(tally.maps_HTT, mapped, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(tally.rollout_T, rolled, rtol=1e-4)
    np.testing.assert_allclose(tally.partner_LHR, looked, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(tally.partners_R, counts)
    np.testing.assert_array_equal(tally.seen.sum(axis=0), [6] * 60 + [5] * 4)


def test_no_map_is_held_whole(monkeypatch):
    monkeypatch.setattr(attention_maps, "_AT_ONCE", 2**11)
    network = planted()
    tokens, largest = prepared(network, 2, 0), []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest.append(out.numel())
            return out

    plan = Plan(layers=(0, 1), rule=Rule(), partners_TR=np.full((64, 1), -1))
    with torch.no_grad():
        subjects = list(sequences(network, tokens))
        tally = Tally(plan, network.encoder, 64)
        with Sizes():
            for subject in subjects:
                tally.add(subject)
    assert max(largest) < 64 * 3 * WIDTH + 1 < 2 * 64 * 64  # queries, keys and values are the largest; a map is larger


def test_the_planted_spotlights_are_found():
    seen, kind = seen_of(planted()), kinds()
    np.testing.assert_array_equal(seen.spotlight_LHT[0], [kind == 1, kind == 2])
    heads = heads_table(seen).set_index(["layer", "head"])
    assert heads.loc[(1, 1), "spotlights"] == 6 and heads.loc[(1, 1), "spotlight_share"] == pytest.approx(6 / 64)
    # Three quarters of the queries look at nothing but 6 tokens.
    assert heads.loc[(1, 1), "attention_to_spotlights"] > 0.74
    assert heads.loc[(1, 1), "effective_tokens"] < 64 / 2
    row = layers_table(seen, 99, np.random.default_rng(0)).iloc[0]
    assert row["spotlights"] == 12 and row["audience_correlation"] > 0.8 > 0.3 > row["between_correlation"]
    assert row["halves_jaccard"] == 1 and row["subjects_overlap"] == pytest.approx(1)
    assert row["subjects_expected"] == pytest.approx(12 / 64, abs=0.01)
    assert row["outside_largest_cluster"] == 1 and (seen.clustering.cluster == 1).sum() == 48


def test_without_audience_there_is_no_spotlight():
    network = planted()
    network.embed.weight.zero_()  # all patches the same, so none correlates with another
    seen = seen_of(network)
    assert (
        not seen.spotlight_LHT.any()
        and np.isnan(layers_table(seen, 9, np.random.default_rng(0))["halves_jaccard"]).all()
    )


def test_the_planted_product_is_decomposed():
    network = planted()
    seen, base = seen_of(network), directions()
    for head, circuit in enumerate(circuits(network.encoder.blocks[0].attention)):
        assert circuit.s_d[0] == pytest.approx(SCALE, rel=1e-5) and circuit.s_d[1:].max() < 1e-6
        assert abs(circuit.u_Dd[:, 0] @ base[1 + head]) == pytest.approx(1, abs=1e-6)
        assert abs(circuit.v_Dd[:, 0] @ base[0]) == pytest.approx(1, abs=1e-6)
    head = heads_table(seen).iloc[0]
    # Rotated, the audience points at the head's spotlights; before, it does not. All that are no spotlights count as
    # audience: 48 that point at them, and the 4 that nobody looks at, which point away.
    assert head["rotated_spotlight"] == pytest.approx((48 - 4) / 52, abs=1e-3)
    assert head["plain_spotlight"] < 0.2 and head["plain_audience"] > 0.8
    assert head["rotated_audience"] < 0 and head["effective_rank"] == pytest.approx(1, abs=1e-6)


def test_planted_symmetry():
    seen = seen_of(planted())
    left, right = (seen.spotlight_LHT[0][:, side] for side in (seen.pairs.left, seen.pairs.right))
    assert (left[0] == right[0]).all() and not (left[1] & right[1]).any()
    table = tokens_table(seen, np.zeros((64, 3)), centres(planted().patcher, AFFINE))
    for one, other in zip(seen.pairs.left, seen.pairs.right, strict=True):
        np.testing.assert_allclose(
            table.loc[one, ["mm_x", "mm_y", "mm_z"]] * [-1, 1, 1], table.loc[other, ["mm_x", "mm_y", "mm_z"]]
        )
        assert table.loc[one, "mirror"] == other


def test_attention_to_the_mirror_image():
    network = planted()
    network.embed.weight.zero_()  # what is left is the position, of which head 1 compares the places along y and z
    weight = network.encoder.blocks[0].attention.qkv.weight.view(3, 2, WIDTH // 2, WIDTH)
    weight[:2] = 0
    for channel, column in enumerate(channels_of_y_and_z(network)):
        weight[:2, 0, channel, column] = 3
    heads = heads_table(seen_of(network, pairings=99)).set_index(["layer", "head"])
    assert heads.loc[(1, 1), "mirror_attention"] > 2 and heads.loc[(1, 1), "mirror_p"] == 0.01
    assert heads.loc[(1, 2), "mirror_attention"] == pytest.approx(1, abs=1e-4)


def channels_of_y_and_z(network: Autoencoder) -> list[int]:
    """Channels of the position codes [64, 24] that are the same along x, and not along the others; every other one."""
    codes = network.positions.numpy().reshape(4, 16, WIDTH)
    return [c for c in range(WIDTH) if np.ptp(codes[..., c], axis=0).max() < 1e-6 < np.ptp(codes[..., c])][::2]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """Nine subjects, one of which lacks four tokens, as the volume store of NIfTI files in MNI space."""
    folder, rng = tmp_path_factory.mktemp("attention"), np.random.default_rng(5)
    (folder / "nifti").mkdir()
    for i in range(9):
        image = nib.Nifti1Image(volume(rng, 4 if i == 2 else 0).astype(np.int16), AFFINE)
        nib.save(image, folder / f"nifti/S{i}.nii.gz")
    ingest(IngestConfig(volumes=folder / "nifti", out=folder / "store.zarr", workers=0, allow="background"))
    return folder / "store.zarr"


def run_of(network: Autoencoder, folder: Path, store: Path, **keys) -> Path:
    """A run directory with this network."""
    from safetensors.torch import save_file

    config = TrainConfig(store=store, run_dir=folder, model=VitAeConfig(**{**MODEL, **keys}))
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config.yaml())
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    Checkpoints(folder / "checkpoints").save(Comm(World()), 0, lambda to: save_file(state, to / WEIGHTS), {})
    return folder


@pytest.fixture(scope="module")
def run(store, tmp_path_factory) -> Path:
    return run_of(planted(), tmp_path_factory.mktemp("run") / "toy", store)


def test_the_verb(run, store, tmp_path, monkeypatch):
    drawn = []
    over = attention_pictures.over_template
    monkeypatch.setattr(
        attention_pictures, "over_template", lambda *a: drawn.append(a) or (over(*a) if len(drawn) < 2 else Figure())
    )
    twin = run_of(planted(seed=4), tmp_path / "twin", store)
    out = tmp_path / "attention"
    config = AttentionConfig(
        run_dir=run, store=store, out=out, runs=[twin], rollout=True, subjects=0, permutations=99, heads=[2], batch=4
    )
    assert any("64 tokens" in line for line in preview(config))
    attention(config)
    facts = json.loads((out / "manifest.json").read_text())["facts"]
    assert facts["subjects"] == 9 and facts["spotlight_share"] == pytest.approx(12 / 64) and facts["mirror_pairs"] == 32
    image, kind = nib.load(out / "spotlight_layer01.nii.gz"), kinds().reshape(4, 4, 4)
    np.testing.assert_array_equal(image.affine, AFFINE)
    planted_ = np.isin(kind, (1, 2)).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    np.testing.assert_array_equal(np.asarray(image.dataobj), planted_)
    received = np.asarray(nib.load(out / "received_layer01_head02.nii.gz").dataobj)
    assert received[planted_].max() == received.max() > 2
    tokens = pd.read_csv(out / "tokens.tsv", sep="\t")
    np.testing.assert_array_equal(tokens["spotlight_heads_L01"] > 0, np.isin(kinds(), (1, 2)))
    np.testing.assert_array_equal(tokens["subjects"], [9] * 60 + [8] * 4)
    seeds = pd.read_csv(out / "seeds.tsv", sep="\t").set_index("layer")
    assert seeds.loc[1, "jaccard"] == 1 and seeds.loc[1, "p"] < 1e-9  # both have the planted first layer
    layers = pd.read_csv(out / "layers.tsv", sep="\t")
    assert layers["received_symmetry_p"].between(0, 1).all()
    maps = np.load(out / "maps_layer01.npy")
    assert maps.shape == (1, 64, 64)
    np.testing.assert_allclose(maps.sum(axis=2)[0, :60], 1, atol=0.2)  # of the subjects that have both tokens
    assert len(drawn) == 4 and all((affine == AFFINE).all() for _, affine, *_ in drawn)
    for name in ("maps", "correlation", "sparsity", "singular", "received"):
        assert len(np.unique(images.imread(out / f"{name}.png"))) > 20 and (out / f"{name}.pdf").exists()
    assert all((out / f"{name}.png").exists() for name in ("spotlight", "stability", "rollout"))
    with pytest.raises(OutputExists):
        attention(config)


def test_what_was_killed_is_done_again(run, store, tmp_path, monkeypatch):
    def dies(*_):
        raise KeyboardInterrupt

    config = AttentionConfig(run_dir=run, store=store, out=tmp_path / "out", subjects=4, permutations=19)
    monkeypatch.setattr(verb, "save", lambda figure, path: None)
    monkeypatch.setattr(attention_pictures, "over_template", lambda *_: Figure())
    with monkeypatch.context() as killed:
        killed.setattr(verb, "to_nifti", dies)
        with pytest.raises(KeyboardInterrupt):
            attention(config)
    attention(config)
    assert (config.out / "manifest.json").exists() and (config.out / "received_layer01.nii.gz").exists()


def test_what_is_refused(run, store, tmp_path):
    keys = {"run_dir": run, "store": store, "out": tmp_path / "out"}
    with pytest.raises(ConfigError, match="layers=3: the network of .* has 2; type 1 to 2"):
        attention(AttentionConfig(**keys, layers=[1, 3]))
    with pytest.raises(ConfigError, match="heads=9: the network of .* has 2"):
        attention(AttentionConfig(**keys, heads=9))
    with pytest.raises(ConfigError, match="layer=2: is not looked at; type one of 1"):
        attention(AttentionConfig(**keys, layers=[1], layer=2))
    with pytest.raises(ConfigError, match="give each run once, and not run_dir itself"):
        attention(AttentionConfig(**keys, runs=[run]))
    with pytest.raises(ConfigError, match="give each run once, and not run_dir itself"):
        attention(AttentionConfig(**keys, runs=[run / ".." / run.name]))
    other = registry.build(VitAeConfig(**{**MODEL, "patch": 4}), np.ones((8, 8, 8), bool))
    coarse = run_of(other, tmp_path / "coarse", store, patch=4)
    with pytest.raises(InputError, match="its tokens or layers are not those of run_dir"):
        attention(AttentionConfig(**keys, runs=[coarse]))
    with pytest.raises(InputError, match="has no attention to look at; give run_dir= of a model.name=vit_ae"):
        attention_maps.encoder(Network(), "run")
    assert not (tmp_path / "out").exists()
