"""DeepSpeed behind one small class: ZeRO 0-3, on CPU (gloo) as on GPU (NCCL). The only importer of deepspeed.

What is switched off, and why: the operation that DeepSpeed compiles at start-up on a CPU serves inference only and
needs a C++ compiler; its own Adam is compiled too and slower than torch's fused one; its schedules use the smallest
rate twice; its loss scale does not survive a restart; its loader would unpickle anything. So: torch's AdamW (which
steps offloaded states, too), LambdaLR, hpc.scaling, and weights-only loading.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import socket
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from torch import nn

from hpc import universal
from hpc.ceiling import matmul_flops
from hpc.comm import Comm
from hpc.config import merge
from hpc.errors import ConfigError, InputError
from hpc.scaling import LossScale, StageZero

log = logging.getLogger(__name__)
_BUCKETS, _SMALLEST_BUCKET, _LARGEST_BUCKET = 8, 2**20, 2 * 10**8  # numbers exchanged at once
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
    """What DeepSpeed needs to know. `extra` is laid over the configuration made here, last.

    `offload` moves the optimiser's states (and in stage 3 the weights) out of the device's memory: to the host, or to
    files in `nvme_path`. `compiler`: torch.compile's backend, None does not compile.
    """

    batches: Batches
    zero: int = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    clip: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)
    offload: Literal["none", "cpu", "nvme"] = "none"
    nvme_path: Path | None = None
    compiler: str | None = None


def precision(name: str, device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """'auto' resolved: bf16 on a GPU that has it, fp32 elsewhere. Warns where a CPU is slower in what is asked for."""
    if name in ("bf16", "fp16") and device.type == "cpu":
        slower = matmul_flops(device, "fp32") / matmul_flops(device, name)
        if slower > 1:
            log.warning(
                "engine.precision=%s: in a matrix product this processor is %.2g times slower than in fp32; type "
                "engine.precision=fp32 unless you are only trying it out",
                name,
                slower,
            )
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
        """`rate(step)` multiplies the optimiser's learning rate at optimiser step 0, 1, ...

        Raises ConfigError where this machine lacks what the options need.
        """
        self.comm, self.options, self._rate = comm, options, rate
        comm.open_group()
        os.environ.setdefault("LOCAL_RANK", str(comm.world.local_rank))  # DeepSpeed insists on it, alone too
        device = comm.device().type
        deepspeed = _import_deepspeed(device)
        lacking = [text for text in comm.gather(_lacking(options, device)) if text]
        if lacking:
            raise ConfigError(lacking[0])
        self._scale = LossScale() if options.precision == "fp16" else None
        if self._scale is not None:
            # The casts are cached nowhere: in stage 3 the copies would outlive the gathered weights.
            module.forward = torch.autocast(device, torch.float16, cache_enabled=False)(module.forward)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._engine, *_ = deepspeed.initialize(
                    model=module,
                    optimizer=optimizer,
                    lr_scheduler=lambda inner: torch.optim.lr_scheduler.LambdaLR(inner, rate),
                    config=_configuration(options, device, sum(p.numel() for p in module.parameters())),
                    dist_init_required=False,
                )
        except Exception as error:
            if not options.extra:
                raise
            raise ConfigError(
                f"engine.deepspeed={options.extra}: DeepSpeed does not start with these keys: {_short(error)}; "
                "correct them, or leave engine.deepspeed out"
            ) from error
        self.stage = int(self._engine.zero_optimization_stage())
        # From here on: the inside of DeepSpeed, which has no other way (watched by tests/hpc/test_private_names.py).
        self._engine.checkpoint_engine.load = universal.load_tensors_only
        if self._scale and self.stage == 0:
            self._engine.torch_autocast_z0_gradscaler = StageZero(self._scale)
        self._gathered = deepspeed.zero.GatheredParameters
        if options.compiler is not None:
            self._engine.compile(backend=options.compiler)

    @property
    def module(self) -> nn.Module:
        """The module itself, for methods other than forward that touch no sharded weights."""
        module: nn.Module = self._engine.module
        return module

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
        if self._scale and self.stage > 0:
            self._engine.optimizer.override_loss_scale(self._scale.scale)  # it multiplies, divides, skips overflows
        for loss in losses:
            self._engine.backward(loss)
            self._engine.step()
            total += loss.detach().float()
        if self._scale:
            self._scale.update(self._engine.optimizer.overflow)
        return total / self.options.batches.accumulation

    @property
    def loss_scale(self) -> float:
        """The factor of the loss in the next step; 1 but in fp16."""
        return self._scale.scale if self._scale else 1.0

    @property
    def skipped(self) -> int:
        """Optimiser steps left out because their gradients overflowed (fp16)."""
        return int(self._engine.skipped_steps)

    def gathered(self, parameter: nn.Parameter, write: bool = False) -> AbstractContextManager[Any]:
        """Within it a weight is whole; with `write` what rank 0 puts there stays. Only stage 3 has it otherwise."""
        if self.stage != 3:
            return nullcontext()
        gathered: AbstractContextManager[Any] = self._gathered([parameter], modifier_rank=0 if write else None)
        return gathered

    @property
    def rate(self) -> float:
        """The learning rate of the next optimiser step."""
        return float(self._engine.get_lr()[0])

    def weights(self) -> dict[str, torch.Tensor]:
        """All weights and the buffers that are saved, on the CPU; whole on rank 0, empty on the others."""
        kept: dict[str, torch.Tensor] = {}
        for name, parameter in self.module.named_parameters():
            with self.gathered(parameter):
                if self.comm.is_main:
                    kept[name] = parameter.detach().cpu().clone().contiguous()
        if self.comm.is_main:
            kept |= {name: value.cpu().clone() for name, value in self._buffers().items()}
        return kept

    def save(self, folder: Path) -> None:
        """Write the state of model, optimiser, scheduler and random numbers into `folder` (one file set a rank). Raises
        on a rank that cannot write, when all have done their part."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            client = {
                "random": self.comm.gather(_random_state()),
                "loss_scale": self._scale and self._scale.state(),
                "buffers": self._buffers() if self.stage == 3 else {},
            }
            files = self._engine.checkpoint_engine
            with _errors_at_the_end((files, "save"), (files, "makedirs"), (self._engine, "_copy_recovery_script")):
                self._engine.save_checkpoint(str(folder), tag=_STATE, client_state=client, save_latest=False)

    def load(self, folder: Path) -> None:
        """Take up the state that `save` wrote, on this or another number of ranks. Rates and what else the optimiser
        was made with stay those of this engine, for a run that goes on from the state of another one.

        On the same number every random number is the one that would have been drawn; on another each rank draws anew,
        from a seed made of its own and the step. Raises InputError where the state does not fit this model.
        """
        wrote = universal.writers(folder / _STATE)
        resharded = self.stage > 0 and wrote not in (0, self.comm.size)
        place = self.comm.on_main(lambda: universal.convert(folder / _STATE)) if resharded else folder
        given = self._hyperparameters()
        self._engine._config.load_universal_checkpoint = resharded  # known only now, long after its keys are read
        try:
            with warnings.catch_warnings(), universal.loading_tensors_only():
                warnings.simplefilter("ignore")
                path, client = self._engine.load_checkpoint(str(place), tag=_STATE)
        except (RuntimeError, KeyError, EOFError, OSError, AssertionError, UnpicklingError) as error:
            raise InputError(f"{folder}: does not hold a state of this model ({_first_line(error)})") from error
        finally:
            self._engine._config.load_universal_checkpoint = False
        if path is None:
            raise InputError(f"{folder / _STATE}: is missing, so the run cannot continue from this checkpoint")
        if resharded and self.stage == 3:  # DeepSpeed's conversion forgets them there
            buffers = self._buffers()
            for name, value in client["buffers"].items():
                buffers[name].copy_(value)
        self._set_hyperparameters(given)
        if self._scale and client.get("loss_scale"):
            self._scale.load(client["loss_scale"])
        states = client["random"]
        if len(states) == self.comm.size:
            _restore_random_state(states[self.comm.rank])
        else:
            torch.manual_seed((torch.initial_seed() + 0x9E3779B97F4A7C15 * (self._engine.global_steps + 1)) % 2**63)

    def _hyperparameters(self) -> list[dict[str, Any]]:
        groups = self._engine.optimizer.param_groups
        return [{key: value for key, value in group.items() if key != "params"} for group in groups]

    def _set_hyperparameters(self, given: list[dict[str, Any]]) -> None:
        scheduler = self._engine.lr_scheduler
        scheduler.base_lrs = [group["initial_lr"] for group in given]
        factor = self._rate(scheduler.last_epoch)
        for group, values in zip(self._engine.optimizer.param_groups, given, strict=True):
            group.update(values | {"lr": values["initial_lr"] * factor})

    def _buffers(self) -> dict[str, torch.Tensor]:
        """The buffers that are saved."""
        saved = self.module.state_dict().keys()
        return {name: value for name, value in self.module.named_buffers() if name in saved}


@contextmanager
def _errors_at_the_end(*writers: tuple[Any, str]) -> Iterator[None]:
    """What these methods (object, name) cannot write raises after the block: in it ranks wait for one another."""
    errors: list[Exception] = []

    def late(write: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any, **words: Any) -> None:
            try:
                write(*arguments, **words)
            except Exception as error:
                errors.append(error)

        return call

    for holder, name in writers:
        setattr(holder, name, late(getattr(holder, name)))
    try:
        yield
    finally:
        for holder, name in writers:
            delattr(holder, name)  # the one of its class shows again
    if errors:
        raise errors[0]


def _configuration(options: Options, device: str, weights: int) -> dict[str, Any]:
    """DeepSpeed's configuration for a module of so many `weights`."""
    batches = options.batches
    # Each is a buffer that DeepSpeed holds; its own size of 5e8 numbers would outweigh most networks.
    bucket = min(_LARGEST_BUCKET, max(_SMALLEST_BUCKET, weights // _BUCKETS))
    zero = {"stage": options.zero, "reduce_bucket_size": bucket, "allgather_bucket_size": bucket}
    if options.zero == 3:
        zero |= {"stage3_prefetch_bucket_size": bucket}
    made: dict[str, Any] = {
        "train_batch_size": batches.total,
        "train_micro_batch_size_per_gpu": batches.micro,
        "gradient_accumulation_steps": batches.accumulation,
        "zero_optimization": zero | _offload(options, device),
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


def _offload(options: Options, device: str) -> dict[str, Any]:
    """DeepSpeed's keys for what does not stay on the device: the optimiser, and in stage 3 the weights."""
    if options.offload == "none":
        return {}
    place: dict[str, Any] = {"device": options.offload, "pin_memory": device == "cuda"}
    if options.offload == "nvme":
        place["nvme_path"] = str(options.nvme_path)
    return {"offload_optimizer": place} | ({"offload_param": place} if options.zero == 3 else {})


def _lacking(options: Options, device: str) -> str:
    """What this machine lacks of what the options need, with its cure; nothing where all is there."""
    if options.offload == "nvme":
        missing = _missing_for_nvme(device)
        if missing:
            return f"engine.offload=nvme: DeepSpeed's async_io cannot be used: {missing}; or type engine.offload=cpu"
        if options.nvme_path is None or not os.access(options.nvme_path, os.W_OK | os.X_OK):
            return f"engine.nvme_path={options.nvme_path}: is not a writable folder on {socket.gethostname()}; give one"
    if options.compiler == "inductor":
        if device == "cpu" and not any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++")):
            return "engine.compile=true: needs a C++ compiler; install g++, or type engine.compile=false"
        if device == "cuda" and importlib.util.find_spec("triton") is None:
            return "engine.compile=true: needs Triton; type pip install triton, or engine.compile=false"
    return ""


def _missing_for_nvme(device: str) -> str:
    """What DeepSpeed's asynchronous I/O lacks, with its cure; nothing where it is built, or can be built on demand."""
    from deepspeed.git_version_info import installed_ops
    from deepspeed.ops.op_builder import AsyncIOBuilder

    if installed_ops.get("async_io"):
        return ""
    if device == "cpu":
        return "it is not built, and on a machine without a GPU nothing is compiled at start-up"
    tools = [tool for tool in ("c++", "ninja") if not shutil.which(tool)]
    if tools:
        return f"it is not built, and to build it {' and '.join(tools)} must be on the PATH"
    if not AsyncIOBuilder().is_compatible():
        return "it is not built, and to build it libaio must be installed (apt-get install libaio-dev)"
    return ""


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

        deepspeed.ops.__compatible_ops__ = {}  # not looked for: that calls the compiler, which says what it misses
    deepspeed.init_distributed(verbose=False, auto_mpi_discovery=False)
    return deepspeed


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
