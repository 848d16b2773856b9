"""DeepSpeed behind one small class: ZeRO 0-3, on CPU (gloo) as on GPU (NCCL). The only importer of deepspeed.

What is switched off, and why: the operation that DeepSpeed compiles at start-up on a CPU serves inference only and
needs a C++ compiler; its own Adam is compiled too and slower than torch's fused one; its schedules use the smallest
rate twice; its loader would unpickle anything. So: torch's AdamW, LambdaLR, and weights-only loading.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from hpc.comm import Comm
from hpc.config import merge
from hpc.errors import ConfigError, InputError

log = logging.getLogger(__name__)
_STATE = "state"  # the folder inside a checkpoint that DeepSpeed writes


@dataclass(frozen=True)
class Batches:
    """How one optimiser step is shared: `total` = `micro` x ranks x `accumulation`."""

    total: int
    micro: int
    accumulation: int

    @classmethod
    def split(cls, total: int, ranks: int, micro: int | None = None) -> Batches:
        """Raises ConfigError where `total` cannot be shared without a remainder; the message says what to type."""
        unit = ranks * (micro or 1)
        if total % unit:
            below, above = total // unit * unit, (total // unit + 1) * unit
            choices = " or ".join(f"global_batch={value}" for value in (below, above) if value)
            each = f"{ranks} ranks" + (f" of micro_batch={micro}" if micro else "")
            raise ConfigError(f"global_batch={total}: cannot be shared by {each} without a remainder; type {choices}")
        micro = micro or total // ranks
        return cls(total, micro, total // (micro * ranks))


@dataclass(frozen=True)
class Options:
    """What DeepSpeed needs to know. `extra` is laid over the configuration made here, last."""

    batches: Batches
    zero: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    clip: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)


def precision(name: str, device: torch.device) -> Literal["fp32", "bf16"]:
    """'auto' resolved: bf16 on a GPU that has it, fp32 elsewhere."""
    if name != "auto":
        return name  # type: ignore[return-value]
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


class Engine:
    """A module under training. Every rank calls every method, in the same order."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        rate: Callable[[int], float],
        options: Options,
        comm: Comm,
    ):
        """`rate(step)` multiplies the optimiser's learning rate at optimiser step 0, 1, ..."""
        self.comm, self.options = comm, options
        comm.open_group()
        os.environ.setdefault("LOCAL_RANK", str(comm.world.local_rank))  # DeepSpeed insists on it, alone too
        deepspeed = _import_deepspeed(comm.device().type)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._engine, *_ = deepspeed.initialize(
                    model=module,
                    optimizer=optimizer,
                    lr_scheduler=lambda inner: torch.optim.lr_scheduler.LambdaLR(inner, rate),
                    config=_configuration(options),
                    dist_init_required=False,
                )
        except Exception as error:
            if not options.extra:
                raise
            raise ConfigError(
                f"engine.deepspeed={options.extra}: DeepSpeed does not start with these keys: {_short(error)}; "
                "mend them, or leave engine.deepspeed out"
            ) from error
        self._engine.checkpoint_engine.load = _load_tensors_only
        self._gathered = deepspeed.zero.GatheredParameters

    @property
    def module(self) -> nn.Module:
        """The module itself, for methods other than forward that touch no sharded weights."""
        return self._engine.module

    def __call__(self, batch: Any) -> Any:
        """The module's forward pass."""
        return self._engine(batch)

    def train(self, mode: bool = True) -> None:
        """Training or evaluation mode."""
        self._engine.train(mode)

    def step(self, losses: Iterable[torch.Tensor]) -> torch.Tensor:
        """One optimiser step over `accumulation` micro-batch losses, each computed as it is asked for.

        Returns the mean of the losses on this rank, detached, on the device.
        """
        total = torch.zeros((), device=self._engine.device)
        for loss in losses:
            self._engine.backward(loss)
            self._engine.step()
            total += loss.detach().float()
        return total / self.options.batches.accumulation

    @property
    def rate(self) -> float:
        """The learning rate of the next optimiser step."""
        return float(self._engine.get_lr()[0])

    def weights(self) -> dict[str, torch.Tensor]:
        """All weights and the buffers that are saved, on the CPU; whole on rank 0, empty on the others."""
        module, sharded = self.module, self.options.zero == 3
        kept: dict[str, torch.Tensor] = {}
        for name, parameter in module.named_parameters():
            with self._gathered([parameter]) if sharded else nullcontext():
                if self.comm.is_main:
                    kept[name] = parameter.detach().cpu().clone().contiguous()
        if self.comm.is_main:
            saved = module.state_dict().keys() - kept.keys()
            kept |= {name: value.cpu().clone() for name, value in module.named_buffers() if name in saved}
        return kept

    def save(self, folder: Path) -> None:
        """Write the state of model, optimiser, scheduler and random numbers into `folder` (one file set a rank)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            client = {"random": self.comm.gather(_random_state())}
            self._engine.save_checkpoint(str(folder), tag=_STATE, client_state=client, save_latest=False)

    def load(self, folder: Path) -> None:
        """Take up the state that `save` wrote. Raises InputError where it does not fit this model."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                path, client = self._engine.load_checkpoint(str(folder), tag=_STATE)
        except (RuntimeError, KeyError, EOFError, OSError) as error:
            raise InputError(f"{folder}: does not hold a state of this model ({_first_line(error)})") from error
        if path is None:
            raise InputError(f"{folder / _STATE}: is missing, so the run cannot go on from this checkpoint")
        states = client["random"]
        if len(states) == self.comm.size:
            _restore_random_state(states[self.comm.rank])


def _configuration(options: Options) -> dict[str, Any]:
    batches = options.batches
    made: dict[str, Any] = {
        "train_batch_size": batches.total,
        "train_micro_batch_size_per_gpu": batches.micro,
        "gradient_accumulation_steps": batches.accumulation,
        "zero_optimization": {"stage": options.zero},
        "gradient_clipping": options.clip,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # offloaded states are stepped by torch: nothing to compile
        "steps_per_print": 10**9,
    }
    if options.precision == "bf16":
        # Autocast keeps the weights in float32 in every ZeRO stage. DeepSpeed's own bf16 mode loses small updates in
        # stage 0 (seen in 0.19.8: its losses differ from the other stages' from the second step on).
        made["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    clash = _overridden(made, options.extra)
    if clash:
        log.warning("engine.deepspeed overrides %s", ", ".join(clash))
    return merge(made, options.extra)


def _overridden(made: dict[str, Any], extra: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys of `made` that get another value from `extra`."""
    clash: list[str] = []
    for key in sorted(set(made) & set(extra)):
        ours, theirs = made[key], extra[key]
        if isinstance(ours, dict) and isinstance(theirs, dict):
            clash += _overridden(ours, theirs, f"{prefix}{key}.")
        elif ours != theirs:
            clash.append(prefix + key)
    return clash


def _import_deepspeed(device: str) -> Any:
    """deepspeed, quiet, attached to the open process group, without its compiled operations on a CPU."""
    if device == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    warnings.filterwarnings("ignore", message=r".*is deprecated\. Please use `torch\.distributed\.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import deepspeed
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    if device == "cpu":
        import deepspeed.ops

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(verbose=False, auto_mpi_discovery=False)
    return deepspeed


def _load_tensors_only(path: str, map_location: Any = None) -> Any:
    """torch.load for DeepSpeed's files: tensors, plain containers and the few DeepSpeed types they hold, no code."""
    from deepspeed.runtime.fp16 import loss_scaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    allowed = [ZeroStageEnum, fragment_address, loss_scaler.LossScaler, loss_scaler.DynamicLossScaler]
    with torch.serialization.safe_globals(allowed):
        return torch.load(path, map_location=map_location, weights_only=True)


def _random_state() -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _restore_random_state(state: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _short(error: BaseException, length: int = 300) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= length else text[:length] + "..."


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
