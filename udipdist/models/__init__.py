"""The networks, one file each, behind one small interface.

A network reads volumes in a *prepared* form that holds all it needs and nothing else (for the ViT the brain tokens), so
that a whole cohort may stay in memory. Its first axis is the subject; background voxels are exactly 0 in it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from hpc.errors import ConfigError, InputError
from udipdist.config import ModelConfig
from udipdist.models.tokens import Patcher, default_patch

WEIGHTS = "weights.safetensors"  # in a checkpoint: all that embedding needs


class Autoencoder(nn.Module):
    """What training and embedding ask of a network. Its saved buffers hold `patcher.mask`, so weights stand alone."""

    patcher: Patcher
    latent: int  # numbers in the bottleneck

    @abstractmethod
    def prepare(self, volumes: Tensor) -> Tensor:
        """Normalised volumes [B, x, y, z] -> the prepared form [B, ...]."""

    @abstractmethod
    def volumes(self, prepared: Tensor) -> Tensor:
        """The prepared form -> volumes [B, x, y, z]; what was left out is 0."""

    @abstractmethod
    def set_mean(self, mean: Tensor) -> None:
        """Take the cohort's mean, prepared and without the subject axis, as the decoder's starting point."""

    @abstractmethod
    def encode(self, prepared: Tensor) -> Tensor:
        """The latent [B, L]."""

    @abstractmethod
    def forward(self, prepared: Tensor) -> tuple[Tensor, Tensor]:
        """(reconstruction in the prepared form, latent [B, L])."""


def resolve(config: ModelConfig, zooms: Sequence[float]) -> ModelConfig:
    """The configuration with what depends on the voxel size [mm] filled in (the patch)."""
    return config if config.patch else config.model_copy(update={"patch": default_patch(zooms)})


def build(config: ModelConfig, mask: np.ndarray, recompute: bool = False) -> Autoencoder:
    """The network of a resolved `config` for volumes with this mask [x, y, z]. Raises ConfigError, InputError."""
    return _NETWORKS[config.name](config, mask, recompute)


def load(config: ModelConfig, weights: str | Path) -> Autoencoder:
    """The network with the weights of a safetensors file, in evaluation mode. Raises InputError where they differ."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{weights}: cannot be read as safetensors ({error}); give another checkpoint=") from None
    if "patcher.mask" not in state:
        raise InputError(f"{weights}: holds no patcher.mask, so it is not a checkpoint of a network of ours")
    network = build(config, state["patcher.mask"].numpy())
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{weights}: does not fit the model in the run's config.yaml: {reason}") from None
    return network.eval()


def _vit_ae(config: ModelConfig, mask: np.ndarray, recompute: bool) -> Autoencoder:
    from udipdist.models.vit_ae import VitAutoencoder

    if config.width % config.heads:
        raise ConfigError(
            f"model.heads={config.heads}: does not divide model.width={config.width}; type model.heads=4, or another "
            "divisor of the width"
        )
    assert config.patch is not None, "resolve the configuration first"
    patch = (config.patch,) * 3 if isinstance(config.patch, int) else config.patch
    keys = ("width", "depth", "decoder_depth", "heads", "mlp_ratio", "latent", "dropout")
    return VitAutoencoder(Patcher(mask, patch), **{key: getattr(config, key) for key in keys}, recompute=recompute)


_NETWORKS: dict[str, Callable[[ModelConfig, np.ndarray, bool], Autoencoder]] = {"vit_ae": _vit_ae}


def count_parameters(network: nn.Module) -> int:
    """Trained numbers of a network."""
    return sum(p.numel() for p in network.parameters())
