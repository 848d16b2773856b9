"""YAML whose plain words keep what was typed: `0001` is a number where a number is wanted, and text where text is."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?\d[\d_]*|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class Word(str):
    """A word that YAML takes for a number, yes or no, or null: the text as it was typed, and its value."""

    __slots__ = ("value",)
    value: Any

    def __new__(cls, text: str, value: Any) -> Word:
        """`text` with `value`."""
        word = super().__new__(cls, text)
        word.value = value
        return word


def load(text: str) -> Any:
    """What YAML text holds, with Word for plain words that are not text alone; repeated keys are refused.

    Dates and times are text. Raises yaml.YAMLError.
    """
    return yaml.load(text, Loader=_Loader)


def dump(tree: Any) -> str:
    """YAML text that `load` reads as the same: text that looks like a number is quoted."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False)


def typed(text: str) -> Any:
    """The right side of `key=value` where the key is text: as it was typed, without YAML's quotes around it."""
    text = text.strip()
    if text[:1] in ("'", '"') and text[-1:] == text[:1]:
        try:
            return str(load(text))
        except yaml.YAMLError:
            return text
    return Word(text, None) if text in ("", "~", "null", "Null", "NULL") else text


def plain(value: Any) -> Any:
    """The same with the values of words."""
    if isinstance(value, Word):
        return value.value
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


class _Loader(yaml.SafeLoader):
    """SafeLoader with the numbers of YAML 1.2, without times, that refuses repeated keys."""


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes what _Loader would not read as text."""


def _number(text: str) -> int | float:
    if _INT.fullmatch(text):
        return int(text.replace("_", ""), {"0x": 16, "0o": 8}.get(text[:2], 10))
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _word(loader: _Loader, node: yaml.ScalarNode) -> Any:
    text, kind = str(node.value), node.tag.removeprefix(_TAG)
    if kind == "null":
        return Word(text, None)
    if kind == "bool":
        return Word(text, loader.construct_yaml_bool(node))
    if not (_INT.fullmatch(text) or _FLOAT.fullmatch(text)):
        raise yaml.constructor.ConstructorError(None, None, f"{text!r} is no number", node.start_mark)
    return Word(text, _number(text))


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, f"{plain(key)!r} is no key", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {str(key)!r} is given twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
for _kind in ("int", "float", "bool", "null"):
    _Loader.add_constructor(_TAG + _kind, _word)
_NUMERIC = tuple(_TAG + kind for kind in ("int", "float", "timestamp"))
for _side in (_Loader, _Dumper):
    _side.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if _side is _Dumper or tag not in _NUMERIC]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for _kind, _pattern in (("int", _INT), ("float", _FLOAT)):
        _whole = re.compile(f"^(?:{_pattern.pattern})$")
        _side.add_implicit_resolver(_TAG + _kind, _whole, list("-+.0123456789"))
