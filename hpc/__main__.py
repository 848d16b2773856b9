"""`python -m hpc` says what this machine is, and what it can and cannot run."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata


def describe_machine() -> list[str]:
    """Lines about processors, memory, GPU, compiler and the versions of what computes."""
    import torch

    lines = [
        f"machine    {platform.node()}, {platform.system()} {platform.machine()}, "
        f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores, "
        f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB memory",
        "software   python " + platform.python_version() + "".join(
            f", {name} {metadata.version(name)}" for name in ("torch", "deepspeed", "dask", "zarr", "numba", "xarray")
        ),
    ]  # fmt: skip
    if torch.cuda.is_available():
        gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        lines += [f"gpu        {g.name}, {g.total_memory / 2**30:.0f} GiB" for g in gpus]
    else:
        lines.append("gpu        none that torch can use: training runs on the CPU in fp32")
    compiler = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
    lines.append(
        f"compiler   {compiler}"
        if compiler
        else "compiler   none: DeepSpeed's CPU operations (optimiser offload) and torch.compile cannot be built; "
        "all else works. On Debian and Ubuntu: apt-get install g++ ninja-build"
    )
    return lines


if __name__ == "__main__":
    print("\n".join(describe_machine()))
