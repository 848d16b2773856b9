"""The run as TensorBoard shows it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter


class Board:
    """Event files of a run in one folder; what an earlier start wrote beyond `step` is not shown."""

    def __init__(self, folder: Path, step: int):
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
