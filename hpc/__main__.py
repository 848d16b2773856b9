"""`python -m hpc` says what this machine is, and what it can and cannot run."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from hpc import int8
from hpc.world import cores

_INSTRUCTIONS = {  # flag of Linux -> what it is for
    "avx2": "avx2", "avx512f": "avx512", "avx512_vnni": "8-bit products (avx512_vnni)",
    "avx_vnni": "8-bit products (avx_vnni)", "avx512_bf16": "bf16 (avx512_bf16)", "amx_bf16": "bf16 (amx)",
    "asimddp": "8-bit products (dotprod)", "bf16": "bf16",
}  # fmt: skip


def describe_machine() -> list[str]:
    """Lines about processors, memory, GPU, compiler and the versions of what computes."""
    import torch

    lines = [
        f"machine    {platform.node()}, {platform.system()} {platform.machine()}, "
        f"{cores()} cores, "
        f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB memory",
        f"processor  {processor()}",
        "software   python " + platform.python_version() + "".join(
            f", {name} {metadata.version(name)}" for name in ("torch", "deepspeed", "dask", "zarr", "numba", "xarray")
        ),
    ]  # fmt: skip
    lines.append(f"products   of small whole numbers in {int8.fastest()}")
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
    return lines + launchers()


def processor(table: Path = Path("/proc/cpuinfo")) -> str:
    """Its name, and which of the instructions that decide about speed it has: 'AMD EPYC 7763: avx2'."""
    text = table.read_text(encoding="utf-8") if table.exists() else ""
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}
    name = facts.get("model name") or platform.processor() or platform.machine()
    flags = facts.get("flags", facts.get("Features", "")).split()
    found = [meaning for flag, meaning in _INSTRUCTIONS.items() if flag in flags]
    return f"{name}: {', '.join(found)}" if found else name


def launchers() -> list[str]:
    """Lines about what can start the ranks of a training here, and what is not there."""
    ray = importlib.util.find_spec("ray") is not None
    found = {
        "torchrun": "launch/torchrun.sh, on one node and several",
        "deepspeed": "launch/deepspeed.sh" + (", on several nodes by pdsh" if shutil.which("pdsh") else ""),
        "slurm": _slurm(),
        "mpirun": shutil.which("mpirun"),
        "ray": f"{metadata.version('ray')}, hpc.torchrun.run in its tasks" if ray else None,
    }
    there = [f"{name} ({what})" for name, what in found.items() if what]
    missing = [name for name, what in found.items() if not what]
    lines = [f"{'launchers' if i == 0 else '':<11}{line}" for i, line in enumerate(there)]
    return lines + [f"{'':<11}not here: {', '.join(missing)}"] * bool(missing)


def _slurm() -> str | None:
    """What Slurm says of its nodes; None where there is no Slurm."""
    if not all(map(shutil.which, ("sbatch", "srun", "sinfo"))):
        return None
    try:
        asked = subprocess.run(["sinfo", "--noheader", "--format=%D"], capture_output=True, text=True, timeout=10)
    except subprocess.TimeoutExpired:
        return "installed, but does not answer"
    nodes = sum(int(line) for line in asked.stdout.split() if line.isdigit())
    return f"launch/train.sbatch, {nodes} nodes" if asked.returncode == 0 else "installed, but does not answer"


if __name__ == "__main__":
    print("\n".join(describe_machine()))
