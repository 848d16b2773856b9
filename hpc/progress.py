"""How far work is: done, total, rate and time left; on a terminal a bar, elsewhere a heartbeat in the log."""

from __future__ import annotations

import logging
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Self

from hpc.screen import is_terminal, screen

if TYPE_CHECKING:
    from rich.text import Text

log = logging.getLogger(__name__)
_REDRAW = 0.2  # seconds between two drawings
_LOOK_BACK = 30.0  # the rate is that of so many seconds, or of a quarter of the time so far where that is longer ...
_STEPS = 5  # ... and of at least so many steps
_MARKS = 300  # times that are remembered for it, about
_DRAWN = "\u2501"  # a heavy horizontal line
_BAR, _LEAST_BAR = 20, 5  # columns of the bar, where there is room


class Progress:
    """Counts `total` units of `unit` under a label. Use as a context manager and call `advance`.

    On a terminal a bar is redrawn, and its last state stays; otherwise a log record is written at most every
    `heartbeat` seconds. Rate and time left are those of late, so what was slow at the start is soon forgotten.
    """

    def __init__(self, label: str, total: int, unit: str = "", heartbeat: float = 15.0, done: int = 0):
        self.label, self.total, self.unit, self.heartbeat = label, total, unit, heartbeat
        self.done = done
        self._note = ""
        self._start = self._shown = time.monotonic()
        self._seen = deque([(self._start, done)])
        self._drawn, self._said = False, -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn:
            screen.close(self._draw)
        elif kind is None and self._said != self.done and time.monotonic() - self._start > self.heartbeat:
            log.info("%s", self.line(self._note))

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count `n` more units; `note` stands at the end of the line."""
        self.done += n
        self._note = note
        now = time.monotonic()
        self._remember(now)
        terminal = is_terminal()
        if now - self._shown < (_REDRAW if terminal else self.heartbeat):
            return
        self._shown = now
        if not terminal:
            self._said = self.done
            log.info("%s", self.line(note))
        elif self._drawn:
            screen.refresh()
        else:
            self._drawn = True
            screen.show(self._draw)

    def line(self, note: str = "") -> str:
        """The current state in words."""
        return f"{self.label}: {self._state()} {note}".rstrip()

    @property
    def rate(self) -> float:
        """Units a second, of late."""
        (then, before), now = self._seen[0], time.monotonic()
        return (self.done - before) / max(now - then, 1e-9)

    def _state(self) -> str:
        rate = self.rate
        left = f", {duration((self.total - self.done) / rate)} left" if rate > 0 and self.done < self.total else ""
        return f"{self.done:,}/{self.total:,} {self.unit} ({_round(rate)}/s{left})"

    def _remember(self, now: float) -> None:
        window = max(_LOOK_BACK, (now - self._start) / 4)
        if now - self._seen[-1][0] < window / _MARKS:
            return
        self._seen.append((now, self.done))
        while len(self._seen) > _STEPS + 1 and now - self._seen[1][0] >= window:
            self._seen.popleft()

    def _draw(self) -> Text:
        """One line, however narrow the terminal: first the note is cut, then the bar goes."""
        from rich.text import Text

        state = self._state()
        room = screen.columns - len(self.label) - len(state) - 2
        bar = min(_BAR, room) if room >= _LEAST_BAR else 0
        full = round(bar * min(1.0, self.done / max(self.total, 1)))
        line = Text.assemble(
            self.label, " ", (_DRAWN * full, "green"), (_DRAWN * (bar - full), "bright_black"), " ", state
        )
        line.append(f" {self._note}".rstrip())
        line.no_wrap, line.overflow = True, "ellipsis"
        return line


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
