"""What a look at a file or folder found, as text for people and as a tree for programs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from dask.utils import format_bytes

from hpc.errors import some
from hpc.progress import duration

COMPLETE, UNFINISHED, DAMAGED = "complete", "unfinished", "damaged"
READABLE = "readable"  # of others, who leave no record by which it could be called complete
_RANK = (READABLE, COMPLETE, UNFINISHED, DAMAGED)
_PROGRAM = ("/udipdist", "udipdist/__main__.py")
_SHOWN = 10  # problems, inputs and outputs inside


@dataclass
class Finding:
    """One artefact. `problems` are why it is not complete; `notes` are for people to know, and change nothing."""

    path: Path
    kind: str
    state: str = COMPLETE
    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    made: dict[str, Any] = field(default_factory=dict)  # when, seconds, host, command, versions ...
    inputs: list[dict[str, str]] = field(default_factory=list)  # key, path, state
    parts: dict[str, int | None] | None = None  # done, total
    inside: list[Finding] = field(default_factory=list)

    def worsen(self, state: str, problems: Iterable[str]) -> None:
        """Add problems; the state becomes `state` where there are any and it was better."""
        problems = list(problems)
        self.problems += problems
        if problems and _RANK.index(state) > _RANK.index(self.state):
            self.state = state

    def hold(self, inside: list[Finding]) -> None:
        """Add what it holds; the worst of that is its own state."""
        self.inside += inside
        for state in (UNFINISHED, DAMAGED):
            self.worsen(state, [f"{self._below(one)}: {one.first_problem}" for one in inside if one.state == state])

    def _below(self, one: Finding) -> str:
        return str(one.path.relative_to(self.path)) if one.path.is_relative_to(self.path) else str(one.path)

    @property
    def first_problem(self) -> str:
        """Of all that is wrong, what to begin with."""
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        return self.problems[0] + more

    def tree(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "path": str(self.path.absolute()),
            "kind": self.kind,
            "state": self.state,
            "problems": self.problems,
            "notes": self.notes,
            "facts": self.facts,
            "parts": self.parts,
            "made": self.made,
            "inputs": self.inputs,
            "inside": [one.tree() for one in self.inside],
        }

    def text(self) -> str:
        """Lines for people."""
        rows = [("", f"{self.kind}, {self.state}")]
        if self.parts is not None:
            total = "" if self.parts["total"] is None else f" of {self.parts['total']:,}"
            rows.append(("done", f"{self.parts['done']:,}{total} {self.parts.get('unit', 'parts')}"))
        rows += [(name.replace("_", " "), shown(v)) for name, v in self.facts.items() if v not in (None, [], {})]
        rows += _made(self.made)
        rows += _labelled("from", [f"{one['key']}: {one['path']} ({one['state']})" for one in self.inputs])
        rows += _labelled("holds", [f"{self._below(one)}: {one.kind}, {one.state}" for one in self.inside], 100)
        rows += _labelled("note", self.notes)
        rows += _labelled("WRONG" if self.state == DAMAGED else "to do", self.problems)
        width = max(len(name) for name, _ in rows)
        lines = [f"  {name:{width}s}  {value}" if name or i else f"  {value}" for i, (name, value) in enumerate(rows)]
        return "\n".join([str(self.path), *lines])


def shown(value: Any) -> str:
    """A fact in words: thousands with commas, few digits, the first of a list."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, dict):
        return ", ".join(
            f"{key.replace('_', ' ')} {shown(item)}" for key, item in value.items() if item not in ([], None)
        )
    if isinstance(value, list | tuple):
        return some([shown(item) for item in value])
    return str(value)


def _labelled(label: str, entries: list[str], limit: int = _SHOWN) -> list[tuple[str, str]]:
    """Rows of which the first has the label."""
    kept = entries[:limit] + ([f"and {len(entries) - limit} more"] if len(entries) > limit else [])
    return [("" if i else label, entry) for i, entry in enumerate(kept)]


def _made(made: dict[str, Any]) -> list[tuple[str, str]]:
    if not made:
        return []
    when = f"{datetime.fromisoformat(made['when']):%Y-%m-%d %H:%M:%S} UTC" if "when" in made else "at an unknown time"
    took = f" in {duration(made['seconds'])}" if "seconds" in made else ""
    rows = [("made", when + took + (f" on {made['host']}" if made.get("host") else ""))]
    if made.get("command"):
        program, *words = made["command"]
        rows.append(("by", shlex.join(["udipdist" if program.endswith(_PROGRAM) else program, *words])))
    versions = ", ".join(f"{name} {version}" for name, version in made.get("versions", {}).items())
    cost = ", ".join(
        f"{format_bytes(made[key])} {what}"
        for key, what in (("peak_memory_bytes", "of memory"), ("output_bytes", "written"))
        if key in made
    )
    return [*rows, *([("with", "; ".join(filter(None, [versions, cost])))] if versions or cost else [])]
