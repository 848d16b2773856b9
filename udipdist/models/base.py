"""What a network is to those who train it, embed with it, and look into it.

A network reads volumes in a *prepared* form that holds all it needs and nothing else (for the ViT the brain tokens), so
that a whole cohort may stay in memory. Its first axis is the subject; background voxels are exactly 0 in it. A network
of several `modalities` has a mapping {modality: tensor} wherever one of a single modality has a tensor: as volumes, as
the prepared form, and as a reconstruction.

Those who use a network ask it what it can do, never what it is called: whether it is an Encoder or an Autoencoder, what
it `learns_from`, whether it has an `encoder_stack`, and whether it is `batch_dependent`.
Shapes: B subjects, L latents, T tokens, D width, Q targets, C covariates.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from udipdist.models.layers.blocks import Stack
from udipdist.models.layers.tokens import Patcher, default_patch, foreground
from udipdist.models.layers.warp import warp
from udipdist.models.losses import psnr, reconstruction_loss, ssim
from udipdist.volumes.packed import Gather

WEIGHTS = "weights.safetensors"  # in a checkpoint: all that embedding needs

Kind = Literal["brain", "patch", "batch"]  # TrainConfig.loss: which voxels count
Volumes = Tensor | Mapping[str, Tensor]  # [B, x, y, z], or that of each modality
Prepared = Tensor | Mapping[str, Tensor]  # [B, ...], or that of each modality


class Pass(NamedTuple):
    """What a pass through an autoencoder gives. `penalty` is added to the loss; 0 where the network has none."""

    reconstruction: Prepared
    latent: Tensor  # [B, L]
    penalty: Tensor  # one number


class Loss(NamedTuple):
    """What training makes smaller: the mean of `subjects`, and `penalty`."""

    subjects: Tensor  # [B]
    penalty: Tensor  # one number, of the batch as a whole


class Examples(NamedTuple):
    """What a Regressor learns from. A target that a subject lacks is not a number (NaN)."""

    prepared: Prepared
    targets: Tensor  # [B, Q]
    covariates: Tensor | None = None  # [B, C], known of a subject beside its volumes


class Pair(NamedTuple):
    """What a Registration learns from: volumes [B, x, y, z], of which each `moving` one is to look like its `fixed`."""

    moving: Tensor
    fixed: Tensor


class EncoderInput(NamedTuple):
    """What the first block of an `encoder_stack` reads of prepared subjects, S of their tokens."""

    patch_BTD: Tensor  # embedded patches, without position codes
    x_BSD: Tensor  # with them; `front` learned tokens stand before those of the subjects
    valid_BS: Tensor | None  # those that take part; None: all
    taken_BT: Tensor  # true for the tokens of the cohort that a subject's latent is made of
    front: int
    pool: nn.Module | None  # how the encoded tokens become one vector; None: their mean


class Network(nn.Module):
    """What training asks of a network. Its saved buffers hold `patcher.mask`, so weights stand alone."""

    learns_from: ClassVar[Literal["volumes", "targets", "pairs"]] = "volumes"  # the batch is Prepared, Examples, Pair
    batch_dependent: ClassVar[bool] = False  # whether what it says of a subject depends on the others of its batch
    modalities: ClassVar[tuple[str, ...]] = ()  # what its mappings hold; none: it has tensors instead

    patcher: Patcher  # which voxels of a volume it reads

    @classmethod
    def resolve(cls, config: Any, zooms: Sequence[float]) -> Any:
        """The configuration with what depends on the voxel size [mm] filled in. A key that was given stays as it is."""
        return config if config.patch else config.model_copy(update={"patch": default_patch(zooms)})

    @classmethod
    @abstractmethod
    def from_config(cls, config: Any, mask: Any, recompute: bool = False) -> Self:
        """The network of a resolved configuration for volumes with this mask, bool [x, y, z].

        With `recompute` activations are computed again in the backward pass. Raises ConfigError, InputError.
        """

    @property
    def encoder_stack(self) -> Stack | None:
        """The transformer that encodes; None where there is none. With one, the network has `encoder_input`, too."""
        return None

    def encoder_input(self, prepared: Tensor) -> EncoderInput:
        """What `encoder_stack` is given in `encode`, for those who want to follow it block by block."""
        raise NotImplementedError(f"{type(self).__name__} has no transformer that encodes")

    def gather(self) -> Gather:
        """The voxels that `prepare` takes, in its order, for those who read them without the rest of the volume."""
        return self.patcher.gather()

    def prepare(self, volumes: Volumes) -> Prepared:
        """Normalised volumes -> the prepared form: the brain tokens [B, T, V]."""
        return _each(self.patcher, volumes)

    def volumes(self, prepared: Prepared) -> Volumes:
        """The prepared form -> volumes [B, x, y, z]; what was left out is 0."""
        return _each(self.patcher.volumes, prepared)

    def set_mean(self, mean: Tensor) -> None:  # a network may have no use for it
        """Take the cohort's mean, prepared and without the subject axis, as a starting point."""

    @abstractmethod
    def forward(self, batch: Any) -> Any:
        """What `loss` and `scores` judge, of the batch that `learns_from` says. It uses no targets."""

    @abstractmethod
    def loss(self, batch: Any, output: Any, kind: Kind) -> Loss:
        """What training makes smaller, of a batch and what `forward` gave for it. It touches no weights."""

    def scores(self, batch: Any, output: Any, kind: Kind) -> dict[str, Tensor]:
        """What validation records of each subject [B]; `loss` is among them."""
        return {"loss": self.loss(batch, output, kind).subjects}


class Encoder(Network):
    """A network that gives a subject's latents, which is all that embedding asks for."""

    latent: int  # numbers of a subject

    @abstractmethod
    def encode(self, prepared: Prepared) -> Tensor:
        """The latent [B, L]."""


class Autoencoder(Encoder):
    """Volumes -> latents -> volumes."""

    @abstractmethod
    def decode(self, latent: Tensor) -> Prepared:
        """Latents [B, L], also ones that no subject has, to the prepared form [B, ...]."""

    @abstractmethod
    def forward(self, prepared: Prepared) -> Pass:
        """Reconstruction, latent and penalty of prepared volumes [B, ...]."""

    def loss(self, batch: Prepared, output: Pass, kind: Kind) -> Loss:
        """The squared error of the voxels that count; of several modalities the mean."""
        return Loss(_judged(partial(reconstruction_loss, kind=kind), batch, output.reconstruction), output.penalty)

    def scores(self, batch: Prepared, output: Pass, kind: Kind) -> dict[str, Tensor]:
        """The loss, the squared error over brain voxels, SSIM and PSNR [dB]."""
        output = output._replace(reconstruction=_each(Tensor.float, output.reconstruction))
        loss = self.loss(batch, output, kind).subjects
        error = loss if kind == "brain" else self.loss(batch, output, "brain").subjects
        pair = self.volumes(batch), self.volumes(output.reconstruction)
        return {"loss": loss, "mse": error, "ssim": _judged(ssim, *pair), "psnr": _judged(psnr, *pair)}


class Regressor(Network):
    """Volumes, and covariates where there are any, -> targets [B, Q] such as an age."""

    learns_from = "targets"

    @abstractmethod
    def forward(self, batch: Examples) -> Tensor:
        """The predictions [B, Q]."""

    def loss(self, batch: Examples, output: Tensor, kind: Kind) -> Loss:
        """The squared error, averaged over the targets that a subject has; 0 for one that has none."""
        known = batch.targets.isfinite()
        error = F.mse_loss(output.float(), batch.targets.where(known, 0.0), reduction="none") * known
        return Loss(error.sum(dim=1) / known.sum(dim=1).clamp(min=1), torch.zeros((), device=error.device))


class Registration(Network):
    """A moving and a fixed volume -> the displacement [B, 3, x, y, z], in voxels, that takes the one to the other.

    At a voxel of the fixed volume it says how far from there the moving one is to be looked at, along x, y and z.
    """

    learns_from = "pairs"

    @abstractmethod
    def forward(self, batch: Pair) -> Tensor:
        """The displacement [B, 3, x, y, z]."""

    def loss(self, batch: Pair, output: Tensor, kind: Kind) -> Loss:
        """The squared difference of the moved volume from the fixed one, over the brain of the latter."""
        brain = foreground(batch.fixed)
        error = (warp(batch.moving, output.to(batch.moving.dtype)) - batch.fixed) ** 2 * brain
        return Loss(error.sum(dim=(1, 2, 3)) / brain.sum(dim=(1, 2, 3)), torch.zeros((), device=error.device))


def count_parameters(network: nn.Module) -> int:
    """Trained numbers of a network."""
    return sum(p.numel() for p in network.parameters())


def _each(function: Callable[[Tensor], Tensor], given: Prepared) -> Prepared:
    """The function of a tensor, or of that of each modality."""
    if isinstance(given, Tensor):
        return function(given)
    return {modality: function(own) for modality, own in given.items()}


def _judged(judge: Callable[[Tensor, Tensor], Tensor], given: Prepared, made: Prepared) -> Tensor:
    """How what was made is judged beside what was given [B]; of several modalities the mean."""
    if isinstance(given, Tensor):
        return judge(given, made)
    return torch.stack([judge(own, made[modality]) for modality, own in given.items()]).mean(dim=0)
