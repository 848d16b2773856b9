"""The live table of a sweep: on a terminal it is redrawn, elsewhere lines in the log say what changed."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback

from hpc.progress import duration
from hpc.screen import is_terminal, screen
from hpc.sweep.stops import Stops
from hpc.sweep.trials import Metrics, Trial, best_of, end, fail, generations, json_of, read_reports

log = logging.getLogger(__name__)
_REDRAW, _HEARTBEAT = 1.0, 60.0  # seconds
_STYLES = {"failed": "red", "finished": "green", "stopped": "yellow", "running": "bold"}


class Table(tune.Callback):
    """Listens to Tune. `total` trials in all, of which `done` ended before; `columns` are keys of reports.

    Once `stops` has been asked, a trial that ends has neither failed nor been stopped by the search.
    """

    def __init__(
        self,
        place: Path,
        total: int,
        done: int,
        columns: Sequence[str],
        metric: str,
        mode: str,
        run: str,
        stops: Stops,
    ):
        self.place, self.total, self.before, self.metric, self.mode, self.run = place, total, done, metric, mode, run
        self.stops = stops
        self.columns = list(dict.fromkeys([*columns, metric]))
        self.rows: dict[str, dict[str, Any]] = {}
        self.drawn, self.begun = -_REDRAW, time.monotonic()
        self._shows = False

    def open(self) -> None:
        """Begin to draw, on a terminal."""
        self.said = time.monotonic()
        self._shows = is_terminal()
        if self._shows:
            screen.show(self._table)

    def close(self) -> None:
        """Draw for the last time."""
        if self._shows:
            screen.close(self._table)
            self._shows = False

    # ------------------------------------------------------------------------------------------- what Tune calls

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial begins, or goes on."""
        row = self._row(trial)
        if row["state"] != "running":
            row["state"] = "running"
            self._say("%s: runs", row["name"])

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Metrics, **info: Any) -> None:
        """A trial has reported."""
        row = self._row(trial)
        row["reports"] = _reports(row["folder"])
        shown = {key: result[key] for key in self.columns if key in result}
        self._say("%s: %s", row["name"], ", ".join(f"{key} {_show(value)}" for key, value in shown.items()))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial is over: finished, failed, or stopped by the search."""
        row = self._row(trial)
        folder = _latest(row["folder"])
        if (folder / "failed.json").exists():
            row["state"] = "failed"
            self._say("%s: failed: %s", row["name"], _message(folder))
            return
        ended = json_of(folder / "ended.json")
        if ended is None and self.stops.asked:
            row["state"] = "interrupted"
            return
        if ended is None:
            end(folder, "stopped")
        row["state"] = "stopped" if ended is None else ended["state"]
        self._say("%s: %s", row["name"], row["state"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The process of a trial has died, as often as is allowed."""
        row = self._row(trial)
        if self.stops.asked:
            row["state"] = "interrupted"
            return
        folder = _latest(row["folder"])
        message = (
            f"its process ended without a word {trial.run_metadata.num_failures} times (killed, or out of memory); "
            f"give more memory, lower search.max_concurrent, or see {folder / 'log.txt'}"
        )
        fail(folder, "ProcessDied", message, self.run)
        row["state"] = "failed"
        self._say("%s: failed: %s", row["name"], message)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune has looked around."""
        now = time.monotonic()
        if self._shows and now - self.drawn >= _REDRAW:
            self.drawn = now
            screen.refresh()
        elif not self._shows and now - self.said >= _HEARTBEAT:
            self._say("%s", self.line())

    # ------------------------------------------------------------------------------------------------ what is shown

    def line(self) -> str:
        """How far the sweep is, in words."""
        states = [row["state"] for row in self.rows.values()]
        over = self.before + sum(state in ("finished", "stopped", "failed") for state in states)
        parts = [f"{over} of {self.total} trials are over", f"{states.count('running')} run"]
        if failed := states.count("failed"):
            parts.append(f"{failed} failed")
        best = best_of([r for row in self.rows.values() for r in row["reports"]], self.metric, self.mode)
        if best:
            parts.append(f"best {self.metric} {_show(best[self.metric])}")
        return f"{', '.join(parts)}, {duration(time.monotonic() - self.begun)}"

    def _row(self, trial: Any) -> dict[str, Any]:
        name = str(trial)
        new = {"name": name, "folder": self.place / "trials" / name, "state": "waits", "reports": []}
        return self.rows.setdefault(name, new)

    def _say(self, text: str, *values: Any) -> None:
        self.said = time.monotonic()
        if not self._shows:
            log.info(text, *values)

    def _table(self) -> Any:
        from rich.table import Table as Grid

        grid = Grid(caption=self.line(), caption_justify="left")
        for name in ("trial", "state", "reports", *self.columns, f"best {self.metric}", "now"):
            grid.add_column(name, justify="left" if name in ("trial", "state", "now") else "right", overflow="fold")
        for row in self.rows.values():
            last = row["reports"][-1] if row["reports"] else {}
            best = best_of(row["reports"], self.metric, self.mode)
            cells = [_show(last.get(key)) for key in self.columns] + [_show(best.get(self.metric))]
            count, state = str(len(row["reports"])), row["state"]
            grid.add_row(row["name"], state, count, *cells, _now(row), style=_STYLES.get(state))
        return grid


class Silence(TrialProgressCallback):
    """Stands where Tune would otherwise put its own lines."""

    def log_result(self, *words: Any, **more: Any) -> None:
        """Nothing."""

    def on_trial_complete(self, *words: Any, **more: Any) -> None:
        """Nothing."""


def _latest(folder: Path) -> Path:
    """The folder that a member of a population has by now."""
    path = folder / "trial.json"
    return generations(Trial.read(folder))[-1].folder if path.exists() else folder


def _reports(folder: Path) -> list[Metrics]:
    return read_reports(_latest(folder))


def _now(row: dict[str, Any]) -> str:
    """What a trial does just now, or why it failed."""
    folder = _latest(row["folder"])
    if row["state"] == "failed":
        return _message(folder)
    path = folder / "now.txt"
    return path.read_text(encoding="utf-8").strip() if row["state"] == "running" and path.exists() else ""


def _message(folder: Path) -> str:
    failed = json_of(folder / "failed.json")
    return f"{failed['message'].splitlines()[0]} ({folder / 'log.txt'})" if failed else ""


def _show(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
