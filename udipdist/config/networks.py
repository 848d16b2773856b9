"""The configuration of a network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hpc.config import Config
from udipdist.config.base import Positive, Share


class ModelConfig(Config):
    """The autoencoder."""

    name: Literal["vit_ae", "cnn_ae"] = Field(
        "vit_ae", description="network: a vision transformer, or the convolutional one of UDIP"
    )
    size: Literal["seed", "S", "B", "L", "H"] | None = Field(
        None, description="a named size; sets what is not given of width, depth, heads, mlp_ratio and the decoder's"
    )
    compat: Literal["vit_udip", "udip"] | None = Field(
        None,
        description="the published network as it is, to compare with: vit_udip, faults included; udip, of name=cnn_ae",
    )
    patch: Positive | tuple[Positive, Positive, Positive] | None = Field(
        None,
        description="patch edge in voxels, one number or three; default 14x16x14 at 1 mm, else the 2^n over 32 mm; "
        "cnn_ae: only which voxels are read, those of patches with brain",
    )
    width: Positive = Field(128, description="token width")
    depth: Positive = Field(4, description="encoder blocks (the paper: 12)")
    heads: Positive = Field(4, description="attention heads (the paper: 8)")
    mlp_ratio: float = Field(3.0, gt=0, description="hidden width of the MLP over the token width (the paper: 4)")
    decoder_width: Positive | None = Field(
        None, description="token width of the decoder (the paper: 64); default width"
    )
    decoder_depth: Positive = Field(1, description="decoder blocks (the paper: 12)")
    decoder_heads: Positive | None = Field(None, description="attention heads of the decoder; default heads")
    latent: Positive = Field(128, description="numbers in the bottleneck, the phenotypes")
    pool: Literal["mean", "attention", "cls"] = Field("mean", description="how a subject's tokens become one vector")
    variational: float = Field(0.0, ge=0, description="weight of the KL divergence from N(0, 1); 0: no sampling")
    covariance: float = Field(
        0.0, ge=0, description="weight of a penalty on correlated or collapsed latents (VICReg), within a micro-batch"
    )
    masked: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of a subject's tokens hidden from the encoder in training"
    )
    dropout: Share = Field(0.0, description="dropout in attention output and MLP")
    channels: Positive = Field(16, description="cnn_ae: channels of the first level; each halving doubles them")
    levels: Positive = Field(4, description="cnn_ae: halvings of the volume")
