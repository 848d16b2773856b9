"""The run as TensorBoard shows it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)


class Board:
    """Event files of a run in one folder; what an earlier start wrote beyond `step` is not shown."""

    def __init__(self, folder: Path, step: int):
        threading.excepthook = _heard
        self._writer = SummaryWriter(str(folder), purge_step=step)

    def numbers(self, part: str, values: Mapping[str, float], step: int) -> None:
        """One point of each curve PART/NAME."""
        for name, value in values.items():
            self._writer.add_scalar(f"{part}/{name}", value, step)
        self._writer.flush()

    def picture(self, path: Path, step: int) -> None:
        """A PNG, as the reconstructions of this step."""
        with Image.open(path) as image:
            self._writer.add_image("reconstructions", np.asarray(image.convert("RGB")), step, dataformats="HWC")
        self._writer.flush()


def _heard(args: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread hands its error (as of a full disk) to the next call, which raises it; a line is enough."""
    if type(args.thread).__module__.startswith("tensorboard."):
        log.warning("tensorboard/: cannot be written (%s)", args.exc_value)
    else:
        threading.__excepthook__(args)
