"""The terminal of this process: what moves stays at its foot, and lines of text are written above that.

One live display for everything, so that bars inside bars and log lines never write over one another. rich draws it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

Drawn = Callable[[], "RenderableType"]  # gives what is to be seen now


def is_terminal() -> bool:
    """True where somebody watches: stderr is a terminal that can move its cursor."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class Screen:
    """What is shown at the foot of the terminal, from top to bottom."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Show nothing here: a forked process leaves the terminal to the one that it came from."""
        self._shown: list[Drawn] = []
        self._live: Live | None = None
        self._lock = threading.RLock()

    @property
    def columns(self) -> int:
        """The width of the terminal, while something is shown."""
        return 80 if self._live is None else self._live.console.width

    def show(self, drawn: Drawn) -> None:
        """Show this below the rest, until it is closed."""
        with self._lock:
            self._shown.append(drawn)
            if self._live is None:
                self._live = self._open()
            self.refresh()

    def close(self, drawn: Drawn) -> None:
        """Show it no more; what it says last stays, once, as text."""
        with self._lock:
            if self._live is None or drawn not in self._shown:
                return
            from rich.console import Group

            self._shown.remove(drawn)
            self._live.console.print(Group(drawn()))  # a bare line would lose how it wants to be cut
            if self._shown:
                self.refresh()
            else:
                self._live.stop()
                self._live = None

    def refresh(self) -> None:
        """Draw again."""
        if self._live is not None:
            self._live.refresh()

    def write(self, line: str) -> None:
        """A line of text, above what is shown; the terminal breaks it where it is too long."""
        with self._lock:
            if self._live is None:
                sys.stderr.write(f"{line}\n")
                sys.stderr.flush()
            else:
                from rich.text import Text

                self._live.console.print(Text(line), soft_wrap=True)

    def _open(self) -> Live:
        from rich.console import Console, Group
        from rich.live import Live

        console = Console(file=sys.stderr, force_terminal=True, highlight=False, markup=False, emoji=False)
        live = Live(
            console=console,
            auto_refresh=False,
            transient=True,
            get_renderable=lambda: Group(*(drawn() for drawn in self._shown)),
        )
        live.start()
        console.show_cursor(True)  # one that is killed could not bring it back
        return live


screen = Screen()
os.register_at_fork(after_in_child=screen.forget)
