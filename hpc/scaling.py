"""The dynamic loss scale of fp16 training, as one small value that is saved with the run.

DeepSpeed has two of its own. The one beside its autocast (torch's GradScaler) is saved in no checkpoint, so a resumed
run starts from another scale, and it is updated once for each group of weights. The one of its fp16 mode loses the
hysteresis in stage 0. So: this one, told to DeepSpeed before each step, the same on every rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hpc.errors import Error

_SMALLEST = 2.0**-14  # by then the gradients themselves are not finite


@dataclass
class LossScale:
    """Halved after a step whose gradients overflow (it is skipped), doubled after `window` steps without one.

    Micikevicius et al. 2018, Mixed Precision Training, section 3.2; the constants of torch.amp.GradScaler.
    """

    scale: float = 2.0**16
    clean: int = 0  # steps since the last change
    window: int = 2000

    def update(self, overflow: bool) -> None:
        """Take note of how a step went. Raises Error where no scale helps: the gradients are not finite at all."""
        if overflow:
            self.scale, self.clean = self.scale / 2, 0
            if self.scale < _SMALLEST:
                raise Error(
                    "the gradients are not finite in fp16 at any loss scale; type engine.precision=bf16 (or fp32), or "
                    "a smaller optim.lr"
                )
            return
        self.clean += 1
        if self.clean == self.window:
            self.scale, self.clean = self.scale * 2, 0

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"scale": self.scale, "clean": self.clean}

    def load(self, state: dict[str, float]) -> None:
        """Go on from a checkpoint."""
        self.scale, self.clean = float(state["scale"]), int(state["clean"])


class StageZero:
    """A LossScale in the place of the torch.amp.GradScaler that DeepSpeed asks at each step in ZeRO stage 0.

    A skipped step is told as `optimizer.overflow`, at which DeepSpeed keeps the learning rate, as in the other stages.
    """

    def __init__(self, scale: LossScale):
        self._scale, self._divided, self._overflow = scale, False, False

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss to differentiate."""
        return loss * self._scale.scale

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the scale out of the gradients, which are summed over ranks by now; before they are clipped."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self._overflow = not bool(torch.nn.utils.get_total_norm(gradients).isfinite())
        optimizer.overflow = self._overflow  # type: ignore[attr-defined]  # read by DeepSpeed
        torch._foreach_mul_(gradients, 1 / self._scale.scale)
        self._divided = True

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Step, but for gradients that overflowed."""
        if not self._divided:
            self.unscale_(optimizer)
        if not self._overflow:
            optimizer.step()
        self._divided = False

    def update(self) -> None:
        """The engine updates the scale in all stages."""
