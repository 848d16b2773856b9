"""DeepSpeed's universal checkpoints: what some ranks left, for any other number of them.

For ZeRO 1-3; what stage 0 saves is whole as it is.
"""

from __future__ import annotations

import contextlib
import io
import logging
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from hpc.errors import InputError
from hpc.files import publish, remove, require_space, size_of

log = logging.getLogger(__name__)
_FOLDER = "universal"


def writers(state: Path) -> int:
    """How many ranks wrote the sharded optimiser in `state`; 0 where it is not sharded."""
    return len(list(state.glob("*_optim_states.pt")))


def convert(state: Path) -> Path:
    """The folder that holds `state` under the same name, made for any number of ranks; made once, by one process.

    It stands beside `state`, appears by one rename, and is removed with the checkpoint. It holds the weights and both
    moments once in float32, 12 bytes a weight. Raises InputError where `state` cannot be converted, and NoSpace.
    """
    place = state.parent / _FOLDER
    if place.exists():
        return place
    if (state / "offloaded_tensors").exists():
        raise InputError(
            f"{state}: its optimiser was kept on disk (engine.offload=nvme), and DeepSpeed cannot redistribute that; "
            f"start {writers(state)} ranks to continue"
        )
    for stale in place.parent.glob(f".{place.name}.partial-*"):  # of a start that was killed here
        remove(stale)
    require_space(place, size_of(state))
    log.info("%s: making what %d ranks wrote fit another number of ranks", state.parent, writers(state))
    with publish(place) as partial, loading_tensors_only():
        from deepspeed.checkpoint import ds_to_universal

        arguments = Namespace(
            input_folder=str(state),
            output_folder=str(partial / state.name),
            num_extract_workers=1,  # in this process
            num_merge_workers=1,
            keep_temp_folder=False,
            strict=True,
            inject_missing_state=True,  # stages 1 and 2 do not save it, and it is empty without tensor parallelism
        )
        partial.mkdir()
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                ds_to_universal.main(arguments)
        except (AssertionError, KeyError, ValueError, RuntimeError, UnpicklingError) as error:
            raise InputError(
                f"{state}: cannot be made to fit another number of ranks ({' '.join(str(error).split())[:300]}); start "
                f"{writers(state)} ranks to go on"
            ) from error
    return place


@contextlib.contextmanager
def loading_tensors_only() -> Iterator[None]:
    """Within the block torch.load, which DeepSpeed calls so that it would run code of the file, runs none."""
    load = torch.load

    def tensors_only(path: Any, *arguments: Any, **words: Any) -> Any:
        return load_tensors_only(path, words.get("map_location"), load)

    torch.load = tensors_only  # type: ignore[assignment]  # stands in for it here, with looser types
    try:
        yield
    finally:
        torch.load = load


def load_tensors_only(path: Any, map_location: Any = None, load: Any = None) -> Any:
    """torch.load for DeepSpeed's files: tensors, plain containers and the few DeepSpeed types they hold, no code."""
    from deepspeed.runtime.fp16 import loss_scaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    allowed = [ZeroStageEnum, fragment_address, loss_scaler.LossScaler, loss_scaler.DynamicLossScaler]
    with torch.serialization.safe_globals(allowed):
        return (load or torch.load)(path, map_location=map_location, weights_only=True)
