"""Fused attention: its kernels agree, and a kernel that cannot run is refused."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from hpc.errors import ConfigError
from udipdist.models.flops import counting
from udipdist.models.layers.attention import Attention, masked_by_channel, narrow, use_backend, watched


@pytest.fixture
def example() -> tuple[Attention, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    valid = torch.ones(2, 50, dtype=torch.bool)
    valid[1, 30:] = False
    return Attention(64, 4, 0.0), torch.randn(2, 50, 64), valid


def test_kernels_agree_and_are_named(example):
    attention, x, valid = example
    results = {}
    for name in ("auto", "flash", "math"):
        use_backend(attention, name)
        with watched(name) as watch:
            results[name] = attention(x, valid)
        assert watch.names() == ("math" if name == "math" else "flash")
    torch.testing.assert_close(results["flash"], results["math"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(results["flash"], results["auto"], rtol=0, atol=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may have the kernel")
def test_a_kernel_that_is_not_there_is_refused(example):
    attention, x, valid = example
    use_backend(attention, "efficient")
    with (
        pytest.raises(ConfigError, match="engine.attention=efficient: this kernel cannot run here"),
        watched("efficient"),
    ):
        attention(x, valid)


def test_other_errors_are_not_blamed_on_the_kernel():
    with pytest.raises(RuntimeError, match="boom"), watched("flash"):
        raise RuntimeError("boom")


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_the_mask_in_a_channel(example, kind):
    _, _, valid = example
    q, k, v = (3 * torch.randn(3, 2, 4, 50, 16, generator=torch.Generator().manual_seed(1))).to(kind)
    for t in (inputs := [q, k, v]):
        t.requires_grad_()
    want = F.scaled_dot_product_attention(q, k, v, attn_mask=valid[:, None, None])
    got = masked_by_channel(q, k, v, valid)
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if kind == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(got, want, **tolerance)
    weight = torch.randn(got.shape).to(kind)
    for one, other in zip(
        torch.autograd.grad((got * weight).sum(), inputs),
        torch.autograd.grad((want * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=5 * tolerance["rtol"], atol=20 * tolerance["atol"])


@pytest.mark.parametrize("width", [3, 8, 16, 24])
def test_zeros_beside_narrow_heads_change_nothing(example, width):
    _, _, valid = example
    q, k, v = 3 * torch.randn(3, 2, 4, 50, width, generator=torch.Generator().manual_seed(2))
    for t in (inputs := [q, k, v]):
        t.requires_grad_()
    mask, weight = valid[:, None, None], torch.randn(2, 4, 50, width)
    want, got = F.scaled_dot_product_attention(q, k, v, attn_mask=mask), narrow(q, k, v, mask)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    for one, other in zip(
        torch.autograd.grad((got * weight).sum(), inputs),
        torch.autograd.grad((want * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)  # other kernels, other orders of float32 sums


def test_only_the_channels_of_a_head_are_counted():
    x = torch.randn(2, 4, 50, 8)
    with counting() as counter, torch.no_grad():
        narrow(x, x, x, None)
    assert counter.get_total_flops() == 2 * (2 * 2 * 4 * 50 * 50 * 8)  # scores and mixing, two a multiply-add
