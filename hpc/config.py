"""Frozen configurations: defaults in Python, differences in YAML and `key=value`, all mistakes reported at once."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import pydantic
import yaml

from hpc import declared, words
from hpc.errors import ConfigError

TOLD = "told"  # the type of a pydantic error whose message is a whole sentence, and names its key


class Config(declared.Declared):
    """Base of every configuration class: frozen, unknown keys refused.

    `operational` names the keys that say how or where to run, not what to compute: a change of these leaves a
    finished output valid.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", validate_default=True)
    operational: ClassVar[frozenset[str]] = frozenset({"out", "overwrite", "workers"})
    renamed: ClassVar[dict[str, str]] = {}  # keys of other times, which are refused with the name that they have now

    @classmethod
    def load(cls, path: str | Path | None = None, overrides: typing.Sequence[str] = ()) -> Self:
        """The configuration of a YAML file (if any) with `key=value` overrides on top.

        Raises ConfigError that lists every mistake with its fix.
        """
        tree = _read_words(path) if path is not None else {}
        for text in overrides:
            _set_dotted(cls, tree, text)
        return cls.parse(tree)

    @classmethod
    def parse(cls, tree: dict[str, Any], where: str = "") -> Self:
        """The configuration of nested dicts; paths may be Path, and numbers stand for text where a key is text. Raises
        ConfigError that lists every mistake with its fix; keys are told as they stand below `where`, as in
        stages.train."""
        try:
            return cls.model_validate(declared.as_declared(cls, tree))
        except pydantic.ValidationError as error:
            lines = [f"{where}{where and '.'}{_explain(cls, item)}" for item in error.errors()]
            raise ConfigError("\n".join(dict.fromkeys(lines))) from None

    def tree(self) -> dict[str, Any]:
        """Plain nested dicts, ready for YAML or JSON."""
        return self.model_dump(mode="json")

    def semantics(self) -> dict[str, Any]:
        """The part of `tree()` that decides the result (without the operational keys)."""
        return {key: value for key, value in self.tree().items() if key not in self.operational}

    @classmethod
    def identity_of(cls, tree: Mapping[str, Any]) -> dict[str, Any]:
        """What decides the result, of a configuration or of one on record, wherever its files lie.

        A path says no more than that there is one: what is there is known by its content (hpc.stage). Of a list of
        paths the names count, as outputs may be called by them; so does the last name of a text that names files.
        """
        known = {key: value for key, value in tree.items() if key not in cls.operational}
        return declared.mapped(cls, known, _without_place)

    def identity(self) -> dict[str, Any]:
        """`identity_of` this configuration."""
        return self.identity_of(self.tree())

    @classmethod
    def paths_of(cls, tree: Mapping[str, Any]) -> dict[str, Path]:
        """The paths in a configuration on record by dotted key; those of a list are numbered, as in phenotypes.0."""
        found: dict[str, Path] = {}

        def note(key: str, annotation: Any, value: Any) -> None:
            if value is not None and (declared.is_path(annotation) or declared.names_files(annotation)):
                several = value if isinstance(value, list) else [value]
                names = [f"{key}.{i}" for i in range(len(several))] if several is value else [key]
                found.update(zip(names, map(Path, several), strict=True))

        declared.mapped(cls, tree, note)
        return found

    def yaml(self) -> str:
        """The resolved configuration as YAML text."""
        return words.dump(self.tree())


@dataclass(frozen=True)
class KeyDoc:
    """One line of a reference manual: a dotted key, its type, default and meaning."""

    key: str
    type: str
    default: str
    meaning: str


def describe(cls: type[declared.Declared], prefix: str = "") -> list[KeyDoc]:
    """Every key of a configuration class, nested ones dotted, in the order of definition."""
    docs: list[KeyDoc] = []
    for name, field in cls.model_fields.items():
        nested = declared.nested_class(field.annotation)
        if nested is not None:
            kinds = nested.alternatives()
            docs += _merged({label: describe(kind, f"{prefix}{name}.") for label, kind in kinds.items()})
            continue
        default = "(required)" if field.is_required() else _show(field.get_default(call_default_factory=True))
        docs.append(KeyDoc(prefix + name, _type_name(field.annotation), default, field.description or ""))
    return docs


def _merged(docs: Mapping[str, list[KeyDoc]]) -> list[KeyDoc]:
    """The keys of several classes by label: what not all have alike says whose it is. Lines of a key stand together."""
    owners: dict[str, dict[KeyDoc, list[str]]] = {}
    for label, own in docs.items():
        for doc in own:
            owners.setdefault(doc.key, {}).setdefault(doc, []).append(label)
    return [
        doc
        if len(labels) == len(docs) or not doc.meaning
        else replace(doc, meaning=f"{', '.join(labels)}: {doc.meaning}")
        for lines in owners.values()
        for doc, labels in lines.items()
    ]


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; `1e-4` is a number, a repeated key is refused. Raises ConfigError."""
    plain: dict[str, Any] = words.plain(_read_words(path))
    return plain


def _read_words(path: str | Path) -> dict[str, Any]:
    path = Path(path)
    try:
        tree = words.load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text; give the path of a YAML file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        kind = type(words.plain(tree)).__name__
        raise ConfigError(f"{path}: holds a {kind}; it must hold `key: value` lines")
    return tree


def merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """`top` laid over `base`, nested mappings merged."""
    merged = dict(base)
    for key, value in top.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return merged


def _set_dotted(cls: type[Config], tree: dict[str, Any], text: str) -> None:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise ConfigError(f"{text!r}: is not of the form key=value")
    node = tree
    *parents, last = key.split(".")
    for name in parents:
        node = node.setdefault(name, {})
        if not isinstance(node, dict):
            raise ConfigError(f"{key}: {name} holds the value {words.plain(node)!r}, so it cannot have keys below it")
    node[last] = words.typed(value) if declared.is_text(declared.annotation_of(cls, key)) else _of_yaml(value)


def _of_yaml(text: str) -> Any:
    """The right side of `key=value` as YAML (`1e-4` a number, `[1, 2]` a list, `null` None)."""
    try:
        return words.load(text)
    except yaml.YAMLError:
        return text


def _without_place(_: str, annotation: Any, value: Any) -> Any:
    if value is None or not (declared.is_path(annotation) or declared.names_files(annotation)):
        return value
    if isinstance(value, list):
        return [Path(one).name for one in value]
    return "(a path)" if declared.is_path(annotation) else Path(value).name


def _explain(cls: type[Config], item: Mapping[str, Any]) -> str:
    """One line for one pydantic error: which key, what is wrong, what is allowed."""
    if item["type"] == TOLD:
        return str(item["msg"])
    path = [str(part) for part in item["loc"]]
    key = ".".join(path)
    if item["type"] == "extra_forbidden" and key.split(".")[0] in cls.renamed:
        return f"{key}: is called {cls.renamed[key.split('.')[0]]} now"
    if item["type"] == "extra_forbidden":
        known = list(dict.fromkeys(doc.key for doc in describe(cls)))
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.5) or difflib.get_close_matches(
            path[-1], known, n=1, cutoff=0.5
        )
        hint = f"did you mean {close[0]}?" if close else "the keys are " + ", ".join(known)
        return f"{key}: unknown key; {hint}"
    if item["type"] == "missing":
        meaning = next((doc.meaning for doc in describe(cls) if doc.key == key), "")
        return f"{key}: is required{f' ({meaning})' if meaning else ''}; give {key}=VALUE"
    message: str = item["msg"].removeprefix("Value error, ")
    if not key:
        return message
    return f"{key}={item['input']!r}: {message[0].lower()}{message[1:]}"


def _type_name(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _type_name(typing.get_args(annotation)[0])
    if origin is typing.Literal:
        return "|".join(str(value) for value in typing.get_args(annotation))
    if origin in declared.UNIONS:
        return " or ".join(_type_name(a) if a is not type(None) else "null" for a in typing.get_args(annotation))
    if origin is not None:
        inner = ", ".join("..." if a is Ellipsis else _type_name(a) for a in typing.get_args(annotation))
        return f"{origin.__name__}[{inner}]"
    return {Path: "path", str: "text", int: "integer", float: "number", bool: "true|false"}.get(
        annotation, getattr(annotation, "__name__", str(annotation))
    )


def _show(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return yaml.safe_dump(value).split("\n")[0]
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(str(v) for v in value) + "]"
    return str(value)
