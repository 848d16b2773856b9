"""How fast is the training? Ours against the published code, MONAI and the device's own limits.

    python -m benchmarks.train [--quick] [--folder DIR]

Four questions, each a table; every pair is measured in turn in one run, and the smallest of its rounds counts:
the `seed` network of ours from its store against a plain PyTorch copy of the published code from .nii.gz; against
MONAI's ViTAutoEnc of the same width and depth (where MONAI is installed); size B (CPU) or L (GPU) against a matrix
product; ZeRO 3 against ZeRO 0 on two ranks. `--quick` ends within 45 s on two cores: fewer steps, a smaller network, no
MONAI. The last line is one JSON object: seed_speedup, mfu, data_wait_fraction, zero3_memory_over_zero0, and more.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks import scans, tables, train_ours, train_peers
from benchmarks.clock import Cost, clock, cores, since_start, smallest

SCANS, BATCH = 4, 2  # the base run of the paper takes 2 at once


def main(words: list[str] | None = None) -> None:
    """Measure, print tables, and a line of JSON last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="45 s on two cores")
    parser.add_argument("--folder", type=Path, help="keep the volumes here, or use those of an earlier run")
    options = parser.parse_args(words)
    for name in ("hpc", "udipdist", "DeepSpeed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        row = measure(options.folder or Path(name), Path(name), options.quick)
    print(json.dumps(tables.rounded(row | {"seconds": since_start()})))


def measure(kept: Path, folder: Path, quick: bool) -> dict[str, Any]:
    """All tables; the numbers of the last line."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    row: dict[str, Any] = {"device": device.type, "threads": cores()}
    with ThreadPoolExecutor(1) as beside:  # memory is no time: its processes may run beside the making of volumes
        zero = beside.submit(train_ours.memory_of_stages, (0, 3), quick)
        paths = scans.make(kept / "scans", SCANS)
        store = train_ours.ingest_and_pack(kept / "scans", folder / "store.zarr")
        stages = zero.result()
    row |= against_published(paths, store, device, rounds=1 if quick else 3, monai=not quick)
    row |= utilisation(store, device, rounds=1 if quick else 3)
    row["zero3_memory_over_zero0"] = stages[3].states / stages[0].states
    row["zero3_peak_over_zero0"] = stages[3].peak / stages[0].peak
    tables.show(
        f"Memory of a rank, {stages[0].parameters / 1e6:,.0f} M parameters on two ranks, GB",
        [
            {"ZeRO stage": stage, "weights, gradients, optimiser": s.states / 1e9, "whole process, peak": s.peak / 1e9}
            for stage, s in stages.items()
        ],
    )
    return row


def against_published(paths: list[Path], store: Path, device: torch.device, rounds: int, monai: bool) -> dict[str, Any]:
    """The `seed` network, disk to optimiser step, ours and others'."""
    ways: dict[str, Any] = {
        "ours, end to end": train_ours.EndToEnd(store, device, BATCH),
        "published code, end to end": train_peers.EndToEnd(paths, device, BATCH),
        "published code, its network alone": train_peers.NetworkAlone(paths, device, BATCH),
    }
    if monai:
        ways |= train_peers.monai(device, BATCH)
    costs = in_turn(ways, rounds)
    ours, theirs = costs["ours, end to end"], costs["published code, end to end"]
    tables.show(
        f"Training on one volume of 182 x 218 x 182, width 128, depth 12, batch {BATCH}, {device.type}",
        [
            {
                "": name,
                "seconds": cost.seconds,
                "processor s": cost.cpu,
                "over ours": cost.seconds / ours.seconds,
                "processor, over ours": cost.cpu / ours.cpu,
            }
            for name, cost in costs.items()
        ],
    )
    waited = ways["ours, end to end"].waited
    return {
        "seed_speedup": theirs.seconds / ours.seconds,
        "seed_speedup_cpu": theirs.cpu / ours.cpu,
        "volumes_per_s": 1 / ours.seconds,
        "data_wait_fraction": waited,
    } | {f"{name}_over_ours": costs[name].seconds / ours.seconds for name in costs if name.startswith("MONAI")}


def in_turn(ways: dict[str, Any], rounds: int) -> dict[str, Cost]:
    """The smallest cost of a volume in each way; the first round warms up and does not count."""
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            with clock() as cost:
                volumes = way.step()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
            if turn:
                costs[name].append(cost * (1 / volumes))
    return {name: smallest(found) for name, found in costs.items()}


def utilisation(store: Path, device: torch.device, rounds: int) -> dict[str, Any]:
    """Operations of the model a second, over those of one large matrix product in the same precision."""
    size, batch = ("L", 16) if device.type == "cuda" else ("B", 1)
    way = train_ours.EndToEnd(store, device, batch, size=size)
    flops, ceiling = way.flops, way.ceiling()
    best = in_turn({size: way}, rounds)[size]
    ceiling = max(ceiling, way.ceiling())
    row = {
        "size": size,
        "parameters": way.parameters,
        "batch": batch,
        "TFLOP a volume": flops / 1e12,
        "volumes_per_s": 1 / best.seconds,
        "TFLOP/s": flops / best.seconds / 1e12,
        "matrix product, TFLOP/s": ceiling / 1e12,
        "mfu": flops / best.seconds / ceiling,
    }
    tables.show_one(f"Model FLOPs utilisation, {way.precision}", row)
    return {"mfu": row["mfu"], "mfu_size": size, "ceiling_tflops": ceiling / 1e12}


if __name__ == "__main__":
    main()
