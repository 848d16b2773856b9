"""Logging: one line a record, with rank and host where there is more than one process."""

from __future__ import annotations

import logging
import socket
import sys

from hpc.world import World


def setup(world: World | None = None, level: int = logging.INFO) -> None:
    """Send the records of hpc and udipdist to stderr; ranks other than 0 show warnings only."""
    world = world or World()
    where = f"[{socket.gethostname()}:{world.rank}] " if world.size > 1 else ""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"%(asctime)s {where}%(levelname).1s %(message)s", "%H:%M:%S"))
    for name in ("hpc", "udipdist"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level if world.is_main else max(level, logging.WARNING))
