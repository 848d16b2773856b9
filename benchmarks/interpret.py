"""What a map of a latent takes: streamed moments beside the published way, which keeps every decoded image.

    python -m benchmarks.interpret [--quick]

A ViT autoencoder with random weights decodes subjects as they are and shifted by one SD along one latent; then comes
the paired t of every voxel. Each way runs in a process of its own, with one thread, and its memory is counted from
when the network is built and has decoded a batch. The last line is JSON, among others with

    subjects_per_s          subjects a second along one direction, streamed (two decoded images each)
    subjects_per_s_published  the same, keeping all images, then scipy.stats.ttest_rel
    memory_over_published   memory of the streamed way over that of the published one, at the same subjects
    memory_growth           memory of the streamed way at all subjects over that at a quarter of them: 1 is constant
    memory_published_1mm_gb what keeping 500 pairs at 1 mm takes, by arithmetic

500 subjects at 2 mm; `--quick`: 200 at 4 mm, below 45 s.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from benchmarks import tables
from benchmarks.clock import clock, forget_peak_memory, since_start
from hpc.stage import own_peak
from udipdist.config import VitAeConfig
from udipdist.interpret.directions import Population, of_latents
from udipdist.interpret.perturb import moments_of
from udipdist.models import base, registry

ROOT = Path(__file__).parents[1]
SHAPES = {2: (91, 109, 91), 4: (48, 56, 48)}
BRAIN_SHARE = 0.26  # of the field of view
ONE_MM, SUBJECTS_PUBLISHED = 182 * 218 * 182, 500
BATCH = 8
WAYS = ("streamed", "published")


def main(words: list[str] | None = None) -> None:
    """Measure, print a table, and a line of JSON last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 subjects at 4 mm; 45 s")
    parser.add_argument("--subjects", type=int, help="default 500, with --quick 200")
    parser.add_argument("--mm", type=int, choices=SHAPES, help="voxel size; default 2, with --quick 4")
    parser.add_argument("--way", choices=WAYS, help="only this one, in this process")
    options = parser.parse_args(words)
    n, mm = options.subjects or (200 if options.quick else 500), options.mm or (4 if options.quick else 2)
    if options.way:
        print(json.dumps(one(options.way, n, mm)))
        return
    few = _apart("streamed", max(2, n // 4), mm)
    streamed, published = (_apart(way, n, mm) for way in WAYS)
    rows = [
        {"": name, "subjects": cost["subjects"], "memory, MB": cost["bytes"] / 1e6, "seconds": cost["seconds"]}
        for name, cost in (("streamed", few), ("streamed", streamed), ("all images kept", published))
    ]
    tables.show(f"A map of a latent at {mm} mm, one thread", rows)
    result = {
        "subjects": n,
        "mm": mm,
        "subjects_per_s": n / streamed["seconds"],
        "subjects_per_s_published": n / published["seconds"],
        "memory_over_published": streamed["bytes"] / published["bytes"],
        "memory_growth": streamed["bytes"] / few["bytes"],
        "memory_gb": streamed["bytes"] / 1e9,
        "memory_published_gb": published["bytes"] / 1e9,
        "memory_published_1mm_gb": 2 * SUBJECTS_PUBLISHED * ONE_MM * 4 / 1e9,
        "largest_difference_of_t": float(abs(np.array(streamed["t"]) - np.array(published["t"])).max()),
        "seconds": since_start(),
    }
    print(json.dumps(tables.rounded(result)))


def one(way: str, n: int, mm: int) -> dict[str, Any]:
    """Time and memory of one way in this process, and a few t values to compare."""
    torch.set_num_threads(1)
    logging.getLogger("hpc").setLevel(logging.ERROR)
    network = network_of(SHAPES[mm])
    latents_NL = torch.from_numpy(np.random.default_rng(0).standard_normal((n, network.latent)).astype(np.float32))
    run = {"streamed": _streamed, "published": _published}[way]
    run(network, latents_NL[: 2 * BATCH])
    forget_peak_memory()
    before = own_peak()
    with clock() as cost:
        t = run(network, latents_NL)
    spread = t[network.patcher.mask.numpy()][:: max(1, int(network.patcher.mask.sum()) // 100)]
    return {"subjects": n, "bytes": own_peak() - before, "seconds": cost.seconds, "t": spread.tolist()}


def network_of(shape: tuple[int, int, int]) -> base.Autoencoder:
    """A network with random weights for a ball of brain; latents bend what is decoded, so that t is finite."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, k) for k in shape], indexing="ij"))
    distance = np.linalg.norm(grid, axis=0)
    mask = distance <= np.quantile(distance, BRAIN_SHARE)
    torch.manual_seed(0)
    network = registry.build(VitAeConfig(patch=8, depth=1), mask).eval().requires_grad_(False)
    network.from_latent.weight.mul_(3)
    return network


def _direction(network: base.Autoencoder, latents_NL: torch.Tensor):
    return of_latents([0], Population(np.eye(network.latent), len(latents_NL)))


def _streamed(network: base.Autoencoder, latents_NL: torch.Tensor) -> np.ndarray:
    (moments,), rounding = moments_of(network, latents_NL, _direction(network, latents_NL), batch=BATCH)
    return network.volumes(moments.t(rounding)[None])[0].numpy()


@torch.no_grad()
def _published(network: base.Autoencoder, latents_NL: torch.Tensor) -> np.ndarray:
    """Every image of every subject is kept, float32."""
    plain, shifted = (np.empty((len(latents_NL), *network.patcher.shape), np.float32) for _ in range(2))
    step = torch.eye(network.latent)[0]
    for start in range(0, len(latents_NL), BATCH):
        z_BL = latents_NL[start : start + BATCH]
        for images, z in ((plain, z_BL), (shifted, z_BL + step)):
            images[start : start + BATCH] = network.volumes(network.decode(z)).numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(np.asarray(stats.ttest_rel(shifted, plain).statistic))


def _apart(way: str, n: int, mm: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.interpret", "--way", way, "--subjects", str(n), "--mm", str(mm)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
