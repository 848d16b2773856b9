"""What keeps all numbers of the bottleneck in use. Each gives one number for a batch of latents [B, L]."""

from __future__ import annotations

import torch
from torch import Tensor

_SPREAD = 1.0  # the standard deviation below which a latent is pulled apart


def gaussian_divergence(mean_BL: Tensor, log_variance_BL: Tensor) -> Tensor:
    """Kullback-Leibler divergence of N(mean, variance) from N(0, 1), averaged over subjects and latents.

    Kingma & Welling 2014, appendix B.
    """
    return -0.5 * (1 + log_variance_BL - mean_BL**2 - log_variance_BL.exp()).mean()


def covariance_penalty(latent_BL: Tensor) -> Tensor:
    """How far the latents are from uncorrelated with a spread of at least 1, over the subjects of one micro-batch.

    The variance and covariance terms of VICReg (Bardes, Ponce & LeCun 2022, equations 1 and 4), equally weighted, in
    float32. As it compares subjects it depends on how they are batched, unlike every other part of the loss.
    """
    latent_BL = latent_BL.float()
    centred_BL = latent_BL - latent_BL.mean(dim=0)
    covariance_LL = centred_BL.T @ centred_BL / (len(latent_BL) - 1)
    variance_L = covariance_LL.diagonal()
    spread = torch.relu(_SPREAD - (variance_L + 1e-4).sqrt()).mean()
    off_diagonal = (covariance_LL**2).sum() - (variance_L**2).sum()
    return spread + off_diagonal / latent_BL.shape[1]
