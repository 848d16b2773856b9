"""Which networks there are, and how one is made of a configuration or of saved weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hpc.errors import ConfigError, InputError, some
from udipdist.config import ModelConfig
from udipdist.models.base import Autoencoder
from udipdist.models.layers.tokens import Patcher, default_patch

_SIZES = {  # the encoders of Dosovitskiy et al. 2021, with decoders of half the width or less
    "seed": {"width": 128, "depth": 12, "heads": 8, "decoder_width": 64, "decoder_depth": 12, "decoder_heads": 8},
    "S": {"width": 384, "depth": 12, "heads": 6, "decoder_width": 192, "decoder_depth": 4, "decoder_heads": 3},
    "B": {"width": 768, "depth": 12, "heads": 12, "decoder_width": 384, "decoder_depth": 4, "decoder_heads": 6},
    "L": {"width": 1024, "depth": 24, "heads": 16, "decoder_width": 512, "decoder_depth": 8, "decoder_heads": 8},
    "H": {"width": 1280, "depth": 32, "heads": 16, "decoder_width": 512, "decoder_depth": 8, "decoder_heads": 8},
}
_SIZED = {"mlp_ratio": 4.0}  # and of all named sizes
_COMPAT = {"vit_udip": "vit_ae", "udip": "cnn_ae"}  # the network that a published form is one of
_OF_ALL = ("name", "compat", "patch", "latent", "covariance")
_OF_CNN = ("channels", "levels")
_WHOLE_GRID = -1.0  # a share of brain that every patch exceeds


def resolve(config: ModelConfig, zooms: Sequence[float]) -> ModelConfig:
    """The configuration with what depends on the voxel size [mm] (the patch) and on `size` filled in. A key that was
    given stays as it is."""
    _refuse_keys_of_others(config)
    published = config.compat == "vit_udip"
    sized = {**_SIZES["seed" if published else config.size], **_SIZED} if published or config.size else {}
    if published:
        fixed = {**{key: field.default for key, field in ModelConfig.model_fields.items()}, **sized}
        own = {key: getattr(config, key) for key in config.model_fields_set - {"compat", "patch", "dropout"}}
        clash = [f"model.{key}={value}" for key, value in sorted(own.items()) if value != fixed[key]]
        if clash:
            raise ConfigError(f"model.compat=vit_udip: is one network as it was published; leave out {some(clash)}")
    update: dict[str, object] = {key: value for key, value in sized.items() if key not in config.model_fields_set}
    if not config.patch:
        update["patch"] = default_patch(zooms)
    return config.model_copy(update=update)


def _refuse_keys_of_others(config: ModelConfig) -> None:
    """Raises ConfigError where a key was given that the network does not have (a key at its default is none)."""
    if config.compat is not None and _COMPAT[config.compat] != config.name:
        raise ConfigError(
            f"model.compat={config.compat}: is the published form of {_COMPAT[config.compat]}, not of {config.name}; "
            f"type model.name={_COMPAT[config.compat]}, or leave one of the two out"
        )
    given = [key for key, field in ModelConfig.model_fields.items() if getattr(config, key) != field.default]
    is_cnn = config.name == "cnn_ae"
    foreign = [key for key in given if key not in _OF_ALL and (key in _OF_CNN) != is_cnn]
    if foreign:
        told = some([f"model.{key}={getattr(config, key)}" for key in foreign])
        others = ", ".join((*_OF_ALL[1:], *_OF_CNN)) if is_cnn else "all but " + " and ".join(_OF_CNN)
        raise ConfigError(f"model.name={config.name}: has no {told}; leave it out (this network has {others})")


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


def _cnn_ae(config: ModelConfig, mask: np.ndarray, recompute: bool) -> Autoencoder:
    from udipdist.models.zoo.cnn_ae import CnnAutoencoder

    keys = ("channels", "levels", "latent", "covariance")
    published = config.compat == "udip"
    patcher = Patcher(mask, _patch(config), _WHOLE_GRID) if published else Patcher(mask, _patch(config))
    given = {key: getattr(config, key) for key in keys}
    return CnnAutoencoder(patcher, **given, published=published, recompute=recompute)


def _vit_ae(config: ModelConfig, mask: np.ndarray, recompute: bool) -> Autoencoder:
    patch = _patch(config)
    inner, inner_heads = config.decoder_width or config.width, config.decoder_heads or config.heads
    for end, heads, width in (("", config.heads, config.width), ("decoder_", inner_heads, inner)):
        if width % heads:
            raise ConfigError(
                f"model.{end}heads={heads}: does not divide model.{end}width={width}; type model.{end}heads="
                f"{max(n for n in range(1, heads) if width % n == 0)}, or another divisor"
            )
    if config.compat == "vit_udip":
        from udipdist.models.zoo.vit_udip import PublishedVit

        if config.latent != config.width:
            raise ConfigError(f"model.latent={config.latent}: with compat=vit_udip the latent is as wide as a token")
        keys = ("width", "depth", "decoder_width", "decoder_depth", "heads", "mlp_ratio", "dropout")
        patcher = Patcher(mask, patch, _WHOLE_GRID)
        return PublishedVit(patcher, **{key: getattr(config, key) for key in keys}, recompute=recompute)
    from udipdist.models.zoo.vit_ae import VitAutoencoder

    keys = (
        "width", "depth", "decoder_width", "decoder_depth", "heads", "decoder_heads", "mlp_ratio", "latent", "dropout",
        "pool", "variational", "covariance", "masked",
    )  # fmt: skip
    return VitAutoencoder(Patcher(mask, patch), **{key: getattr(config, key) for key in keys}, recompute=recompute)


def _patch(config: ModelConfig) -> tuple[int, int, int]:
    assert config.patch is not None, "resolve the configuration first"
    return (config.patch,) * 3 if isinstance(config.patch, int) else config.patch


_NETWORKS: dict[str, Callable[[ModelConfig, np.ndarray, bool], Autoencoder]] = {"vit_ae": _vit_ae, "cnn_ae": _cnn_ae}
