"""One progress line: done, total, rate and time left; on a terminal a bar, elsewhere a heartbeat in the log."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Self

log = logging.getLogger(__name__)


class Progress:
    """Counts `total` units of `unit` under a label. Use as a context manager and call `advance`.

    On a terminal the line is redrawn; otherwise a log record is written at most every `heartbeat` seconds.
    """

    def __init__(self, label: str, total: int, unit: str = "", heartbeat: float = 15.0, done: int = 0):
        self.label, self.total, self.unit, self.heartbeat = label, total, unit, heartbeat
        self.done = self._first = done
        self._start = self._shown = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal and self.done:
            self._draw()
            sys.stderr.write("\n")
        elif kind is None and time.monotonic() - self._start > self.heartbeat:
            log.info("%s", self.line())

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count `n` more units; `note` stands at the end of the line."""
        self.done += n
        now = time.monotonic()
        if now - self._shown < (0.2 if self._terminal else self.heartbeat):
            return
        self._shown = now
        if self._terminal:
            self._draw(note)
        else:
            log.info("%s", self.line(note))

    def line(self, note: str = "") -> str:
        """The current state in words."""
        elapsed = max(time.monotonic() - self._start, 1e-9)
        rate = (self.done - self._first) / elapsed
        left = f", {duration((self.total - self.done) / rate)} left" if rate > 0 and self.done < self.total else ""
        return f"{self.label}: {self.done:,}/{self.total:,} {self.unit} ({_round(rate)}/s{left}) {note}".rstrip()

    def _draw(self, note: str = "") -> None:
        sys.stderr.write("\r\x1b[K" + self.line(note))
        sys.stderr.flush()


def _round(rate: float) -> str:
    """Three digits: '12,300', '4.56', '0.0123'."""
    return f"{float(f'{rate:.3g}'):,.0f}" if rate >= 100 else f"{rate:.3g}"


def duration(seconds: float) -> str:
    """'2 h 05 min', '3 min 20 s' or '12 s'."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole} s"
