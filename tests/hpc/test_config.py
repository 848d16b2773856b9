"""Configurations: YAML + key=value, all mistakes at once, each with its fix."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from hpc import words
from hpc.config import Config, describe, merge, read_yaml
from hpc.declared import KeysOf
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


class Texts(Config):
    name: str = Field("x", description="text")
    maybe: str | None = Field(None, description="text or null")
    names: tuple[str, ...] = Field((), description="texts")
    either: str | list[str] = Field("x", description="text or a list")
    place: Path | None = Field(None, description="a folder")
    places: tuple[Path, ...] = Field((), description="folders")
    number: int | None = Field(None, description="a number")
    share: float = Field(0.5, description="a number")
    flag: bool = Field(False, description="yes or no")
    kind: Literal["no", "1e5", "all"] = Field("all", description="one of some")
    mixed: tuple[int, ...] | Literal["all"] | None = Field(None, description="numbers or all")
    by_name: dict[str, tuple[str, ...]] = Field({}, description="names of names")


class Whole(Config):
    texts: Texts = Texts()
    stages: Annotated[dict[str, dict[str, Any]], KeysOf(one=Texts)] = Field({}, description="keys by stage")
    keys: Annotated[dict[str, Any], KeysOf(Texts)] = Field({}, description="keys")
    anything: dict[str, Any] = Field({}, description="of any kind")


TYPED = [
    "008.6", "1037", "0001", "1e5", "1_000", "0x1F", "0o17", "12:30:00", "190:20:30", "2023-01-01", "2023", "on", "no",
    "Yes", "true", "FALSE", "-9", ".5", "1.50", "+1", ".inf", "25781-2.0", "a=b", "NaN",
]  # fmt: skip


@pytest.mark.parametrize("word", TYPED)
def test_text_is_what_was_typed(tmp_path, word):
    """On the command line and in YAML, alone and in lists, at the top and in keys of stages."""
    given = [f"name={word}", f"maybe={word}", f"names=[{word}, x]", f"either={word}", f"place={word}"]
    given += [f"places=[{word}]", f"by_name={{{word}: [{word}]}}"]
    texts = Texts.load(None, given)
    assert (texts.name, texts.maybe, texts.names, texts.either) == (word, word, (word, "x"), word)
    assert (str(texts.place), [str(path) for path in texts.places], texts.by_name) == (word, [word], {word: (word,)})
    assert Texts.load(None, [f"names={word}".replace("names", "either"), f"either=[{word}]"]).either == [word]
    file = tmp_path / "c.yaml"
    file.write_text(
        f"texts:\n  name: {word}\n  names:\n  - {word}\nstages:\n  one: {{name: {word}, names: [{word}]}}\n"
    )
    whole = Whole.load(file, [f"keys.maybe={word}", f"stages.one.either={word}"])
    assert (whole.texts.name, whole.texts.names) == (word, (word,))
    assert whole.stages == {"one": {"name": word, "names": [word], "either": word}} and whole.keys == {"maybe": word}
    file.write_text(whole.yaml())
    assert Whole.load(file) == whole


def test_null_is_a_name_in_a_list_and_nothing_where_nothing_may_be():
    texts = Texts.load(None, ["names=[null, ~, NA]", "maybe=null", "place=~", "number=null", "either=[null]"])
    assert texts.names == ("null", "~", "NA") and texts.either == ["null"]
    assert (texts.maybe, texts.place, texts.number) == (None, None, None)
    assert Texts.load(None, ["maybe='null'", 'name="0001"']).model_dump(include={"maybe", "name"}) == {
        "name": "0001", "maybe": "null",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="name=None"):
        Texts.load(None, ["name="])


@pytest.mark.parametrize("text", ["a: b", "50% #1", "{x}", "[x", "- a", "*a", "'a", "a 'b'", "!x", "x,y"])
def test_marks_of_yaml_mean_nothing_in_a_text_that_is_typed(text):
    assert Texts.load(None, [f"name={text}", f"maybe={text}"]).maybe == text


def test_numbers_and_choices_stay_what_they_are():
    texts = Texts.load(
        None, ["number=0012", "share=1e-4", "flag=on", "kind=1e5", "mixed=[1, 2]", "by_name={a: [1, b]}"]
    )
    assert (texts.number, texts.share, texts.flag, texts.kind, texts.mixed) == (12, 1e-4, True, "1e5", (1, 2))
    texts = Texts.load(None, ["kind=no", "mixed=all", "number=1_000"])
    assert (texts.kind, texts.mixed, texts.number) == ("no", "all", 1000)
    with pytest.raises(ConfigError, match="number='x'"):
        Texts.load(None, ["number=x"])


def test_numbers_of_python_stand_for_text():
    texts = Texts.parse({"name": 1037, "names": [8.6, 1037, "x"], "either": 3, "place": Path("2023"), "places": [2023]})
    assert (texts.name, texts.names, texts.either) == ("1037", ("8.6", "1037", "x"), "3")
    assert (texts.place, texts.places) == (Path("2023"), (Path("2023"),))
    with pytest.raises(ConfigError, match="name=True"):
        Texts.parse({"name": True})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("1.5E3", 1500.0), ("[1, 2]", [1, 2]), ("null", None), ("true", True), ("off", False),
        ("0012", 12), ("a=b", "a=b"), ("{[1]: 2}", "{[1]: 2}"), ("12:30:00", "12:30:00"), ("2023-01-01", "2023-01-01"),
        (".inf", float("inf")), ("{grid: [1e-5, 2]}", {"grid": [1e-5, 2]}), ("!!str 1", "1"),
    ],
)  # fmt: skip
def test_values_of_any_kind_are_read_as_yaml(text, value):
    found = Whole.load(None, [f"anything.x={text}"]).anything["x"]
    assert found == value and type(found) is type(value)


def test_text_that_looks_like_a_number_is_written_with_quotes():
    for word in TYPED:
        assert words.plain(words.load(words.dump({"a": [word]}))) == {"a": [word]}


def test_word_that_is_no_key_value():
    with pytest.raises(ConfigError, match="not of the form key=value"):
        Outer.load(None, ["path"])


def test_describe_lists_every_key_dotted():
    assert [doc.key for doc in describe(Outer)] == ["path", "inner.lr", "inner.kind", "count"]
    assert describe(Outer)[0].default == "(required)"
    assert describe(Outer)[2].type == "a|b"


def test_merge_goes_down():
    assert merge({"a": {"x": 1, "y": 2}, "b": 1}, {"a": {"y": 3}, "c": 4}) == {"a": {"x": 1, "y": 3}, "b": 1, "c": 4}
