"""Dask workers that call `part`. The only importer of dask.distributed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

from hpc import parts
from hpc.errors import Incomplete


def runner(workers: int, threads: int = 1) -> parts.Runner:
    """A runner for `parts.run`: `workers` local Dask worker processes; 0 means here, synchronously."""
    return parts.here if workers == 0 else partial(_on_local_cluster, workers=workers, threads=threads)


def _on_local_cluster(
    job: parts.Job, indices: list[int], workers: int, threads: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    if not indices:
        return
    import dask
    from distributed import Client, KilledWorker, LocalCluster, as_completed

    logging.getLogger("distributed").setLevel(logging.ERROR)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 3}),
        LocalCluster(
            n_workers=min(workers, len(indices)), threads_per_worker=threads, processes=True, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        shared = client.scatter(job, broadcast=True, hash=False)
        futures = {client.submit(parts.run_part, shared, i, pure=False): i for i in indices}
        for future in as_completed(futures):
            try:
                yield futures[future], future.result()
            except KilledWorker:
                raise Incomplete(
                    f"{job.place}: the worker that ran part {futures[future]} died again and again, most likely for "
                    "want of memory; give fewer workers= and run the same command to go on"
                ) from None
