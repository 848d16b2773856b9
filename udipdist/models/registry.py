"""How a network is made of its configuration or of saved weights."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpc.errors import InputError
from udipdist.config import NetworkConfig
from udipdist.models.base import Network


def resolve(config: NetworkConfig, zooms: Sequence[float]) -> NetworkConfig:
    """The configuration with what depends on the voxel size [mm] (the patch) and on a named size filled in. A key that
    was given stays as it is."""
    return _class(config).resolve(config, zooms)


def build(config: NetworkConfig, mask: np.ndarray, recompute: bool = False) -> Network:
    """The network of a resolved `config` for volumes with this mask [x, y, z]. Raises ConfigError, InputError."""
    return _class(config).from_config(config, mask, recompute)


def load(config: NetworkConfig, weights: str | Path) -> Network:
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


def _class(config: NetworkConfig) -> type[Network]:
    module, _, name = type(config).network.partition(":")
    return getattr(importlib.import_module(module), name)
