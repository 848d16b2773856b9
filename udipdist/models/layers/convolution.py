"""The 3-D convolution of the CNN autoencoder, in float64 on a CPU too. Shapes: B subjects, C channels, O outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_AT_ONCE = 16384  # places; their sums stay in the processor's cache


class Conv3d(nn.Conv3d):
    """torch.nn.Conv3d of 3 x 3 x 3 voxels, padded with zeros to the same size.

    For float64 torch has no fast kernel on a CPU: it copies the input 27 times (25 GB for 16 channels of 1 mm) and took
    six times as long. So without gradients, as in embedding, it is done as 27 matrix products of shifted inputs.
    """

    def __init__(self, channels: int, outputs: int, bias: bool = True):
        super().__init__(channels, outputs, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float64 and x.device.type == "cpu" and not torch.is_grad_enabled():
            return shifted(x, self.weight, self.bias)
        return super().forward(x)


def shifted(x_BCxyz: Tensor, weight_OC333: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """The convolution [B, O, x, y, z] as a sum over the 27 neighbours, each a matrix product over the channels.

    On a padded grid laid out flat, a neighbour is a shift; what lands in the padding is cut off. Equal to rounding.
    """
    batch, channels, *shape = x_BCxyz.shape
    padded = F.pad(x_BCxyz, [1] * 6).transpose(0, 1).reshape(channels, -1)
    rows, columns = shape[1] + 2, shape[2] + 2
    shifts = [(i * rows + j) * columns + k for i in range(3) for j in range(3) for k in range(3)]
    weights = weight_OC333.permute(2, 3, 4, 0, 1).reshape(27, -1, channels).contiguous()
    bias_O = x_BCxyz.new_zeros(len(weight_OC333)) if bias_O is None else bias_O
    out = x_BCxyz.new_zeros(len(bias_O), padded.shape[1])
    length = padded.shape[1] - shifts[-1]
    for start in range(0, length, _AT_ONCE):
        stop = min(start + _AT_ONCE, length)
        total = bias_O[:, None].repeat(1, stop - start)
        for weight_OC, shift in zip(weights, shifts, strict=True):
            total.addmm_(weight_OC, padded[:, start + shift : stop + shift])
        out[:, start:stop] = total
    grid = out.view(-1, batch, *(n + 2 for n in shape))[:, :, : shape[0], : shape[1], : shape[2]]
    return grid.transpose(0, 1).contiguous()
