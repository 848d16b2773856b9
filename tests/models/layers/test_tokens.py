"""Patches, the cohort's token set, and positions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpc.errors import InputError
from udipdist.models.layers.tokens import Patcher, default_patch, sincos_positions


def test_round_trip_with_padding():
    mask = np.ones((7, 10, 9), bool)
    patcher = Patcher(mask, (4, 4, 4), brain_share=0.0)
    assert patcher.grid == (2, 3, 3) and patcher.tokens == 18
    volumes = torch.randn(3, 7, 10, 9)
    assert torch.equal(patcher.volumes(patcher(volumes)), volumes)


def test_padding_is_symmetric():
    # The paper pads y by 3 + 3, from 218 to 224 voxels; an odd remainder goes behind.
    patcher = Patcher(np.ones((7, 10, 4), bool), (4, 4, 4))
    tokens = patcher(torch.ones(1, 7, 10, 4))[0].view(-1, 4, 4, 4)
    assert tokens[0, :, 0].sum() == 0 and tokens[0, :, 1].sum() > 0  # one zero row before y
    assert tokens[-1, :, 3].sum() == 0 and tokens[-1, :, 2].sum() > 0  # one behind
    assert tokens[0, 0].sum() > 0 and tokens[-1, 3].sum() == 0  # x: 7 voxels, nothing before, one behind


@pytest.mark.parametrize(("patch", "said"), [((100, 100, 100), "100x100x100"), ((4, 4, 10), "4x4x10")])
def test_a_patch_larger_than_the_volume_is_named(patch, said):
    with pytest.raises(InputError, match=f"model.patch={said}: .* have 7x10x9 voxels; .* at most 7"):
        Patcher(np.ones((7, 10, 9), bool), patch)


def test_paper_grid():
    assert default_patch((1.0, 1.0, 1.0)) == (14, 16, 14)
    patcher = Patcher(np.ones((182, 218, 182), bool), (14, 16, 14))
    assert patcher.grid == (13, 14, 13) and patcher.tokens == 2366 and patcher.voxels == 3136


@pytest.mark.parametrize(("zoom", "edge"), [(2.0, 16), (3.0, 16), (4.0, 8), (6.0, 8), (8.0, 4), (40.0, 2)])
def test_default_patch_spans_32_mm(zoom, edge):
    assert default_patch((zoom,) * 3) == (edge,) * 3


def test_tokens_carry_their_own_place():
    # The published code gave 98.9 % of tokens the code of another. Fill each patch with its own coordinates.
    mask = np.zeros((8, 12, 16), bool)
    mask[2:7, 3:11, 1:14] = True
    patcher = Patcher(mask, (4, 4, 4))
    for axis in range(3):
        place = np.indices(mask.shape)[axis] // 4
        tokens = patcher(torch.from_numpy(place[None].astype(np.float32)))[0]
        assert torch.equal(tokens.amax(dim=1), patcher.coordinates[:, axis].float())
        assert torch.equal(tokens.amin(dim=1), patcher.coordinates[:, axis].float())


def test_token_set_follows_the_mask():
    mask = np.zeros((8, 8, 8), bool)
    mask[:4, :4, :4] = True
    mask[4, 4, 4] = True  # 1 of 64 voxels: 1.6 %, below 2 %
    patcher = Patcher(mask, (4, 4, 4))
    assert patcher.coordinates.tolist() == [[0, 0, 0]]
    mask[4, 4, 5] = True  # 3.1 %
    assert Patcher(mask, (4, 4, 4)).coordinates.tolist() == [[0, 0, 0], [1, 1, 1]]


def test_empty_mask_is_refused():
    with pytest.raises(InputError, match="mask holds no brain"):
        Patcher(np.zeros((8, 8, 8), bool), (4, 4, 4))


@pytest.mark.parametrize("width", [24, 128])
def test_positions_tell_all_places_apart(width):
    patcher = Patcher(np.ones((13, 14, 13), bool), (1, 1, 1))
    codes = sincos_positions(patcher.coordinates, width, patcher.grid)
    assert codes.shape == (2366, width) and codes.abs().max() <= 1
    nearest = torch.pdist(codes.double()).min()
    assert nearest > 0.5
    # An axis has its own third of the code: tokens of equal x agree there.
    per_axis = width // 6
    first = codes.view(13, 14, 13, width)[..., :per_axis]
    assert torch.equal(first[:, 0, 0], first[:, 5, 7])


def test_positions_need_some_width():
    with pytest.raises(InputError, match="model.width=4"):
        sincos_positions(torch.zeros(1, 3), 4, (1, 1, 1))
