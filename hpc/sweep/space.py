"""Search spaces: dotted keys of a configuration, each with the values it may take.

    optim.lr: {loguniform: [1e-5, 1e-3]}
    model.width: {grid: [96, 192]}
    schedule:
      grid:
        steplr: {optim.schedule: step}
        cosine: {optim.schedule: cosine, optim.warmup: 100}

Where the options of grid or choice have names, as the last, each sets several keys, and its key (schedule) is a label.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hpc.errors import ConfigError

Kind = Literal["grid", "choice", "uniform", "loguniform", "randint"]
_LISTS, _RANGES = ("grid", "choice"), ("uniform", "loguniform", "randint")
_FORMS = "{grid: [a, b]}, {choice: [a, b]}, {uniform: [low, high]}, {loguniform: [low, high]} or {randint: [low, high]}"
_DIGITS = 4  # of a number that is drawn: what is written in a name or on a command line is what was run
_LONGEST = 120  # characters of a name; a file system allows 255


@dataclass(frozen=True)
class Domain:
    """The values of one key: `options` of grid and choice, with a name each, or a range low <= value <= high.

    randint includes both ends.
    """

    key: str
    kind: Kind
    options: tuple[tuple[str, Any], ...] = ()
    named: bool = False
    low: float = math.nan
    high: float = math.nan

    def settings(self, value: Any) -> dict[str, Any]:
        """What `value` (of a named option its name) sets: dotted keys and their values."""
        return dict(dict(self.options)[value]) if self.named else {self.key: value}

    def draw(self, rng: np.random.Generator) -> Any:
        """A random value; of named options a name."""
        if self.kind in _LISTS:
            name, value = self.options[rng.integers(len(self.options))]
            return name if self.named else value
        if self.kind == "randint":
            return int(rng.integers(int(self.low), int(self.high) + 1))
        if self.kind == "uniform":
            return self.clip(rng.uniform(self.low, self.high))
        return self.clip(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))

    def clip(self, value: float) -> float:
        """A number of the range, with few digits; whole where the range is randint."""
        if self.kind == "randint":
            return int(min(max(round(value), self.low), self.high))
        return min(max(float(f"{value:.{_DIGITS}g}"), self.low), self.high)

    def extremes(self) -> list[Any]:
        """Values that between them meet every option, or both ends of the range."""
        if self.kind in _LISTS:
            return [name if self.named else value for name, value in self.options]
        return [int(self.low), int(self.high)] if self.kind == "randint" else [self.low, self.high]

    def label(self, value: Any) -> str:
        """How `value` stands in the name of a configuration."""
        if self.named or isinstance(value, str):
            return str(value)
        return f"{self.key.rpartition('.')[2]}{_text(value)}"


@dataclass(frozen=True)
class Configuration:
    """A point of the space: its name, unlike that of any other point, and dotted keys with their values."""

    name: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Space:
    """All keys that are searched; with none the space is one point, `base`."""

    domains: tuple[Domain, ...] = ()

    @property
    def keys(self) -> list[str]:
        """The dotted keys that configurations set."""
        found = [key for d in self.domains for value in d.extremes() for key in d.settings(value)]
        return list(dict.fromkeys(found))

    def configuration(self, chosen: Mapping[str, Any]) -> Configuration:
        """The configuration with `chosen` for each domain, by its key."""
        values: dict[str, Any] = {}
        for domain in self.domains:
            values.update(domain.settings(chosen[domain.key]))
        name = "-".join(domain.label(chosen[domain.key]) for domain in self.domains) or "base"
        safe = re.sub(r"[^A-Za-z0-9_.+-]+", "_", name).lstrip(".-") or "configuration"
        if safe != name or len(safe) > _LONGEST:
            safe = f"{safe[:_LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        return Configuration(safe, values)

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every combination of the grids; the other keys are left out."""
        grids = [domain for domain in self.domains if domain.kind == "grid"]
        for values in itertools.product(*(domain.extremes() for domain in grids)):
            yield {domain.key: value for domain, value in zip(grids, values, strict=True)}

    def examples(self) -> list[Configuration]:
        """Configurations that between them meet every option and both ends of every range: to be validated early."""
        lists = [domain.extremes() for domain in self.domains]
        longest = max((len(values) for values in lists), default=1)
        rows = [[values[i % len(values)] for values in lists] for i in range(longest)]
        keys = [domain.key for domain in self.domains]
        return [self.configuration(dict(zip(keys, row, strict=True))) for row in rows]


def parse_space(tree: Mapping[str, Any], prefix: str = "space") -> Space:
    """The space of a mapping as YAML has it; keys may be dotted or nested. Raises ConfigError with every mistake."""
    domains, mistakes = [], []
    for key, value in _flat(tree):
        try:
            domains.append(_domain(key, value))
        except ConfigError as error:
            mistakes.append(f"{prefix}.{key}: {error}")
    seen: dict[str, str] = {}
    for domain in domains:
        for key in dict.fromkeys(key for value in domain.extremes() for key in domain.settings(value)):
            if key in seen:
                mistakes.append(f"{prefix}.{domain.key}: sets {key}, as {prefix}.{seen[key]} does; keep one of them")
            seen[key] = domain.key
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return Space(tuple(domains))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and not set(value) & {*_LISTS, *_RANGES} and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _domain(key: str, value: Any) -> Domain:
    if not isinstance(value, Mapping) or len(value) != 1 or next(iter(value)) not in (*_LISTS, *_RANGES):
        raise ConfigError(f"{value!r} gives no values to try; give {_FORMS}")
    ((kind, given),) = value.items()
    return _listed(key, kind, given) if kind in _LISTS else _range(key, kind, given)


def _listed(key: str, kind: Kind, given: Any) -> Domain:
    if isinstance(given, Mapping) and given:
        for name, settings in given.items():
            if not isinstance(settings, Mapping) or not all(isinstance(k, str) for k in settings):
                raise ConfigError(f"option {name}: {settings!r} is not a mapping of keys; give {{key: value, ...}}")
        return Domain(key, kind, tuple((str(name), dict(leaves(s))) for name, s in given.items()), named=True)
    if not isinstance(given, list) or not given:
        raise ConfigError(f"{kind}: {given!r} is not a list of values; give {{{kind}: [a, b, ...]}}")
    names = [json.dumps(value, sort_keys=True, default=str) for value in given]
    if len(set(names)) < len(names):
        raise ConfigError(f"{kind}: {given!r} has a value twice; keep one of them")
    return Domain(key, kind, tuple(zip(names, given, strict=True)))


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of nested mappings."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _range(key: str, kind: Kind, given: Any) -> Domain:
    numbers = isinstance(given, list) and len(given) == 2 and all(_is_number(value) for value in given)
    if not numbers or not given[0] < given[1]:
        raise ConfigError(f"{kind}: {given!r} is not a range; give {{{kind}: [low, high]}} with low < high")
    if kind == "loguniform" and given[0] <= 0:
        raise ConfigError(f"loguniform: {given!r} begins at {given[0]}; its low end must be above 0, or give uniform")
    if kind == "randint" and not all(isinstance(value, int) for value in given):
        raise ConfigError(f"randint: {given!r} are not whole numbers; give whole ones, or uniform")
    return Domain(key, kind, low=given[0], high=given[1])


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _text(value: Any) -> str:
    """A value as a short word."""
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return json.dumps(value, separators=(",", ":"), default=str)
