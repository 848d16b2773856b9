"""Logging: one line a record, with rank and host where there is more than one process."""

from __future__ import annotations

import logging
import socket

from hpc.screen import screen
from hpc.world import World


class _Lines(logging.Handler):
    """Writes records to stderr, above what moves there."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            screen.write(self.format(record))
        except Exception:  # as logging's own handlers do: a log that cannot be written must not end the work
            self.handleError(record)


def setup(world: World | None = None, level: int = logging.INFO) -> None:
    """Send the records of hpc and udipdist to stderr; ranks other than 0 show warnings only."""
    world = world or World()
    where = f"[{socket.gethostname()}:{world.rank}] " if world.size > 1 else ""
    handler = _Lines()
    handler.setFormatter(logging.Formatter(f"%(asctime)s {where}%(levelname).1s %(message)s", "%H:%M:%S"))
    for name in ("hpc", "udipdist"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level if world.is_main else max(level, logging.WARNING))
