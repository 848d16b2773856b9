"""What the keys of a configuration are declared as, and values as that: where a key is text, what was typed."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from hpc import words
from hpc.words import Word

UNIONS = (typing.Union, types.UnionType)
_LISTS = (list, tuple, set, frozenset)


class Declared(pydantic.BaseModel):
    """A model whose keys can be looked up."""

    @classmethod
    def alternatives(cls) -> Mapping[str, type[Declared]]:
        """The classes, by what they are called, of which one stands where a key is of this class."""
        return {cls.__name__: cls}


class KeysOf:
    """Says of a key that its mapping holds keys of `cls`; or of classes by name, as those of stages."""

    def __init__(self, cls: type[Declared] | None = None, **by_name: type[Declared]):
        self.cls, self.by_name = cls, by_name

    def as_typed(self, tree: Any) -> Any:
        """The mapping with text where a key is text."""
        if not isinstance(tree, Mapping):
            return words.plain(tree)
        if self.cls is not None:
            return as_declared(self.cls, tree)
        return {
            str(name): as_declared(self.by_name[name], keys)
            if name in self.by_name and isinstance(keys, Mapping)
            else words.plain(keys)
            for name, keys in tree.items()
        }

    def annotation(self, key: str) -> Any:
        """What a dotted key below this one is declared as; None where that is not known."""
        if self.cls is not None:
            return annotation_of(self.cls, key)
        name, _, rest = key.partition(".")
        return annotation_of(self.by_name[name], rest) if name in self.by_name and rest else None


class Files:
    """Says of a key of text that it names files: by a path, a pattern, or a word for what is shipped."""


Change = Callable[[str, Any, Any], Any]


def mapped(cls: type[Declared], tree: Mapping[str, Any], change: Change, above: str = "") -> dict[str, Any]:
    """The tree with each value as `change(dotted key, what that is declared as, value)` gives it."""
    return {
        key: mapped(cls, value, change, f"{above}{key}.")
        if isinstance(value, Mapping)
        else change(f"{above}{key}", annotation_of(cls, f"{above}{key}"), value)
        for key, value in tree.items()
    }


def names_files(annotation: Any) -> bool:
    """True for text that `Files` says names files, and lists of such text."""
    while typing.get_origin(annotation) is typing.Annotated:
        annotation, *extras = typing.get_args(annotation)
        if any(isinstance(extra, Files) for extra in extras):
            return True
    return False


def _fields(cls: type[Declared]) -> dict[str, Any]:
    """What each key is declared as, with KeysOf or Files where it has one."""
    found: dict[str, Any] = {}
    for kind in cls.alternatives().values():
        for name, field in kind.model_fields.items():
            keys = [extra for extra in field.metadata if isinstance(extra, KeysOf | Files)]
            found.setdefault(name, typing.Annotated[field.annotation, keys[0]] if keys else field.annotation)
    return found


def annotation_of(cls: type[Declared], key: str) -> Any:
    """What a dotted key is declared as; None where that is not known."""
    name, _, rest = key.partition(".")
    declared_as = _fields(cls).get(name)
    annotation, keys = _without_extras(declared_as)
    if not rest:
        return annotation if keys is not None else declared_as
    if keys is not None:
        return keys.annotation(rest)
    nested = nested_class(annotation)
    return annotation_of(nested, rest) if nested is not None else None


def nested_class(annotation: Any) -> type[Declared] | None:
    """The class of keys that stand below this one."""
    if isinstance(annotation, type) and issubclass(annotation, Declared):
        return annotation
    return None


def _without_extras(annotation: Any) -> tuple[Any, KeysOf | None]:
    """The bare annotation, and its KeysOf."""
    keys = None
    while typing.get_origin(annotation) is typing.Annotated:
        annotation, *extras = typing.get_args(annotation)
        keys = next((extra for extra in extras if isinstance(extra, KeysOf)), keys)
    return annotation, keys


def is_text(annotation: Any) -> bool:
    """True for text and paths, that may be null too."""
    annotation, _ = _without_extras(annotation)
    if typing.get_origin(annotation) in UNIONS:
        return all(arm is type(None) or is_text(arm) for arm in typing.get_args(annotation))
    return annotation in (str, Path)


def is_path(annotation: Any) -> bool:
    """True for paths and lists of paths, that may be null too."""
    annotation, _ = _without_extras(annotation)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in UNIONS:
        return any(map(is_path, args)) and all(arm is type(None) or is_path(arm) for arm in args)
    if origin in _LISTS:
        return all(arm is Ellipsis or is_path(arm) for arm in args)
    return annotation is Path


def as_declared(cls: type[Declared], tree: Mapping[Any, Any]) -> dict[str, Any]:
    """The tree with words and numbers as what their keys are declared as: text as it was typed."""
    fields = _fields(cls)
    return {
        str(key): _as_typed(fields[key] if key in fields else annotation_of(cls, str(key)), value)
        for key, value in tree.items()
    }


def _as_typed(annotation: Any, value: Any) -> Any:
    annotation, keys = _without_extras(annotation)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if keys is not None:
        return keys.as_typed(value)
    if origin in UNIONS:
        return _as_typed(_arm(args, value), value)
    if isinstance(value, Mapping):
        nested = nested_class(annotation)
        if nested is not None:
            return as_declared(nested, value)
        kind = args[1] if origin is dict else Any
        return {str(key): _as_typed(kind, one) for key, one in value.items()}
    if origin in _LISTS:
        several = value if isinstance(value, (list, tuple)) else [value]
        kinds = (
            args if origin is tuple and Ellipsis not in args and len(args) == len(several) else args[:1] * len(several)
        )
        made = [_as_typed(kind, one) for kind, one in zip(kinds, several, strict=True)]
        return made if several is value else made[0]
    if annotation in (str, Path):
        return _text(value)
    if origin is typing.Literal and isinstance(value, Word) and value in args:
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_as_typed(Any, one) for one in value]
    return words.plain(value)


def _text(value: Any) -> Any:
    """As typed; an empty word is no text, and neither is True of Python."""
    if isinstance(value, Word):
        return str(value) or None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return str(value) if number or isinstance(value, Path) else words.plain(value)


def _arm(arms: Sequence[Any], value: Any) -> Any:
    """The one of several declared types that a value is meant for: null, a listed word, a number, text, a list."""
    bare = [_without_extras(arm)[0] for arm in arms]
    given = words.plain(value)
    if given is None and type(None) in bare:
        return type(None)
    if isinstance(value, Mapping):
        return next(
            (arm for arm, b in zip(arms, bare, strict=True) if typing.get_origin(b) is dict or nested_class(b)), Any
        )
    lists = [arm for arm, b in zip(arms, bare, strict=True) if typing.get_origin(b) in _LISTS]
    if isinstance(value, (list, tuple)):
        return lists[0] if lists else Any
    for arm in bare:
        if typing.get_origin(arm) is typing.Literal and value in typing.get_args(arm):
            return arm
    if any(type(given) is arm or (arm is float and type(given) is int) for arm in bare if arm in (int, float, bool)):
        return Any
    texts = [arm for arm in bare if arm in (str, Path)]
    return (texts or lists or [Any])[0]
