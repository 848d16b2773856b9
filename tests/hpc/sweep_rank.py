"""A rank of a trial: `sweep_rank FOLDER` adds up the numbers of all ranks."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    dist.init_process_group("gloo")
    total = torch.tensor([float(dist.get_rank())])
    dist.all_reduce(total)
    (folder / f"rank{dist.get_rank()}.txt").write_text(os.environ["GROUP_RANK"])
    if dist.get_rank() == 0:
        (folder / "sum.json").write_text(json.dumps({"ranks": dist.get_world_size(), "sum": total.item()}))
    dist.destroy_process_group()
