"""Outputs and inputs that have moved: known by their content, looked for where the configuration names them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import pytest

from hpc.config import Config
from hpc.declared import Files
from hpc.errors import OutputExists
from hpc.moved import place_beside, place_now
from hpc.parts import fix_plan
from hpc.stage import fingerprint, is_current, manifest_path, stage, unchanged


class Copied(Config):
    out: Path
    source: Path
    tables: tuple[Path, ...] = ()
    genes: Annotated[str | None, Files()] = None
    p: float = 0.5
    overwrite: bool = False

    def inputs(self) -> dict[str, Path]:
        return {"source": self.source, **{f"tables{i}": path for i, path in enumerate(self.tables)}}


def make(config: Copied) -> None:
    with stage("copy", config.out, config, config.inputs(), config.overwrite):
        config.out.mkdir(parents=True, exist_ok=True)
        (config.out / "f").write_text("x")


@pytest.fixture
def place(tmp_path):
    folder = tmp_path / "place"
    folder.mkdir()
    for name in ("in.txt", "a.tsv", "b.tsv"):
        (folder / name).write_text(name)
    return folder


def copied(place: Path, **keys) -> Copied:
    given = {"out": place / "o", "source": place / "in.txt", "tables": [place / "a.tsv", place / "b.tsv"]}
    return Copied.parse(given | keys)


def test_another_path_to_the_same_is_the_same(place, monkeypatch):
    make(copied(place))
    monkeypatch.chdir(place)
    (place / "link.txt").symlink_to("in.txt")
    for source in ("in.txt", "../place/in.txt", "./in.txt", "link.txt"):
        config = copied(Path(), source=source)
        assert is_current("copy", config.out, config), source
        assert is_current("copy", config.out, config, config.inputs()), source


def test_moved_together_and_one_by_one(place, tmp_path):
    make(copied(place))
    place.rename(tmp_path / "elsewhere")
    place = tmp_path / "elsewhere"
    assert is_current("copy", place / "o", copied(place))
    (place / "deep").mkdir()
    (place / "in.txt").rename(place / "deep" / "renamed.txt")
    config = copied(place, source=place / "deep" / "renamed.txt")
    assert is_current("copy", config.out, config, config.inputs())
    assert not is_current("copy", place / "o", copied(place))


@pytest.mark.parametrize("known", [True, False])
def test_what_has_changed_is_stale_wherever_it_lies(place, tmp_path, known):
    make(copied(place))
    other = tmp_path / "other"
    place.rename(other)
    config = copied(other)
    inputs = config.inputs() if known else None
    assert is_current("copy", config.out, config, inputs)
    os.utime(other / "b.tsv", ns=(1, 1))
    assert not is_current("copy", config.out, config, inputs)


def test_lists_are_known_by_name_and_order(place):
    make(copied(place))
    turned = copied(place, tables=[place / "b.tsv", place / "a.tsv"])
    assert not is_current("copy", turned.out, turned, turned.inputs())
    assert not is_current("copy", place / "o", copied(place, tables=[place / "a.tsv"]))


def test_text_that_names_files_is_known_by_its_last_name():
    def identity(genes):
        return copied(Path("x"), genes=genes).identity()["genes"]

    assert identity("a/genes.gtf") == identity("/b/genes.gtf") == "genes.gtf"
    assert identity("ensembl") == "ensembl" and identity(None) is None


def test_a_link_to_an_output_has_its_manifest(place):
    config = copied(place)
    make(config)
    (place / "link").symlink_to("o")
    store = place / "s.zarr"
    store.mkdir()
    manifest_path(config.out).rename(manifest_path(store))
    (place / "t.zarr").symlink_to(store)
    assert fingerprint(place / "t.zarr")["manifest"] == fingerprint(store)["manifest"]


def test_a_pattern_has_the_content_of_its_files(place):
    seen = fingerprint(place / "*.tsv")
    assert seen["files"] == 2 and unchanged(seen, place / "*.tsv")
    (place / "c.tsv").write_text("")
    assert not unchanged(seen, place / "*.tsv") and not unchanged(seen, place / "nothing")


def test_manifests_without_their_own_path_are_read(place):
    config = copied(place)
    make(config)
    path = manifest_path(config.out)
    manifest = json.loads(path.read_text())
    assert manifest.pop("path") == str(config.out)
    path.write_text(json.dumps(manifest))
    assert is_current("copy", config.out, config)


@pytest.mark.parametrize(
    ("was", "then", "now", "found"),
    [
        ("/a/x.zarr", "x.zarr", "/b/y.zarr", "/b/y.zarr"),
        ("/a/x.zarr", "../x.zarr", "x.zarr", "x.zarr"),
        ("/a/g.bed", "/a/g", "/b/h", "/b/h.bed"),
        ("/a/s.grm.sp", "a/s", "../s", "../s.grm.sp"),
        ("/a/chr1.bed", "/a/chr{chr}", "/b/chr{chr}", "/b/chr1.bed"),
        ("/a/x.zarr", "/c/x.zarr", "/b/y.zarr", "/a/x.zarr"),
        ("/a/genes.bed", "/a/g", "/b/g", "/a/genes.bed"),
    ],
    ids=["whole", "above", "prefix", "relative prefix", "pattern", "another folder", "longer name"],
)
def test_where_an_input_is_now(was, then, now, found):
    assert place_now(Path(was), {"k": Path(then)}, {"k": Path(now)}) == Path(found)


def test_the_key_that_says_most_wins():
    then, now = {"a": Path("x"), "b": Path("in/x")}, {"a": Path("1"), "b": Path("2")}
    assert place_now(Path("/r/in/x"), then, now) == Path("2")


def test_beside_an_output_that_moved():
    assert place_beside(Path("/a/r/in/s.zarr"), "/a/r/gwas", Path("/b/gwas")) == Path("/b/in/s.zarr")
    assert place_beside(Path("/a/s.zarr"), None, Path("/b/o")) is None


def test_a_plan_holds_where_its_inputs_lie_now(place, tmp_path):
    source, moved = place / "in.txt", place / "moved.txt"
    fix_plan(tmp_path / "o", {"p": 1, "inputs": {"source": fingerprint(source)}})
    source.rename(moved)
    plan = {"p": 1, "inputs": {"source": fingerprint(moved)}}
    fix_plan(tmp_path / "o", plan)
    assert json.loads((tmp_path / "o" / "plan.json").read_text()) == plan
    os.utime(moved, ns=(1, 1))
    with pytest.raises(OutputExists, match=r"different: inputs.source.changed_ns\); give another run_dir="):
        fix_plan(tmp_path / "o", {"p": 1, "inputs": {"source": fingerprint(moved)}}, key="run_dir")
