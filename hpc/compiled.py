"""numba's `njit`, which says so when it compiles: the first run of a loop on a machine takes seconds, once."""

from __future__ import annotations

import logging

from numba import njit
from numba.core import event

__all__ = ["njit"]
log = logging.getLogger(__name__)


class _Announcer(event.Listener):
    """Says that the first loop of this process is being compiled; what numba finds in its cache is not."""

    said = False

    def on_start(self, event: event.Event) -> None:
        """A loop that is not in the cache begins to be compiled."""
        if not self.said:
            self.said = True
            log.info("compiling, once: the next run finds these loops ready")

    def on_end(self, event: event.Event) -> None:
        """It is compiled."""


event.register("numba:compile", _Announcer())  # type: ignore[no-untyped-call]
