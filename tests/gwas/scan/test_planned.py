"""The plan of a scan as it is saved: what was written is read, and a plan of another format is refused."""

from __future__ import annotations

import json

import pytest

from hpc.errors import Incomplete, OutputExists
from hpc.stage import read_manifest
from udipdist.config import GwasFinishConfig, GwasPartConfig, GwasPlanConfig
from udipdist.gwas.outputs import TablePlan
from udipdist.gwas.scan import phases
from udipdist.gwas.scan.planned import FORMAT_VERSION, ScanPlan, planned_path
from udipdist.gwas.scan.verb import gwas
from udipdist.inspection.outputs import unfinished


@pytest.fixture
def plan() -> ScanPlan:
    return ScanPlan(
        n_variants=12,
        rows={"paths": ["/a.bed"], "counts": [12], "n_samples": 4, "stamps": [[19, 5]], "selection": None},
        x_runs=[[3, 5], [8, 12]],
        sex=[1, 2, 0, 1],
        groups=2,
        people=[[0, 1, 3], [2]],
        tables=[TablePlan("a", "a", 0, 2, 0, {"n_samples": 3}), TablePlan("b", "b", 2, 3, 1, {"n_samples": 1})],
        facts={"n_traits": 3, "weight_error": 1e-10, "left_out": {"region": 4}, "tables": ["a", "b"]},
    )


@pytest.fixture
def planned(make_cohort, tmp_path):
    """A small scan that is planned, and its keys."""
    cohort = make_cohort(tmp_path / "c", seed=1, n=60, m=30)
    tree = cohort.config("out", test="linear", variants_per_part=10).tree()
    phases.gwas_plan(GwasPlanConfig.parse(tree))
    return cohort.folder / "out", tree


def change(out, **keys) -> None:
    """Lay other keys over those of the plan in `out`; None takes one away."""
    tree = json.loads(planned_path(out).read_text()) | keys
    planned_path(out).write_text(json.dumps({key: value for key, value in tree.items() if value is not None}))


def test_what_is_saved_is_loaded(plan, tmp_path):
    plan.save(tmp_path)
    assert ScanPlan.load(tmp_path) == plan
    tree = json.loads(planned_path(tmp_path).read_text())
    assert tree["format_version"] == FORMAT_VERSION
    assert tree["tables"][1] == {
        "name": "b", "folder": "b", "start": 2, "stop": 3, "people": 1, "facts": {"n_samples": 1}
    }  # fmt: skip


def test_a_plan_that_is_not_there(tmp_path):
    with pytest.raises(Incomplete, match="has no plan yet; run gwas-plan with the same arguments first"):
        ScanPlan.load(tmp_path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"format_version": FORMAT_VERSION + 1}, f"format_version is {FORMAT_VERSION + 1}, and .* {FORMAT_VERSION};"),
        ({"format_version": None}, f"format_version is missing, and this version of udipdist reads {FORMAT_VERSION};"),
        ({"format_version": 0, "rows": 3, "more": 1}, f"format_version is 0, and .* reads {FORMAT_VERSION};"),
        ({"groups": "many", "people": None}, r"planned.json: is damaged \(groups, people\);"),
        ({"more": 1}, r"planned.json: is damaged \(more\);"),
    ],
)  # fmt: skip
def test_another_plan_is_refused(plan, tmp_path, keys, message):
    plan.save(tmp_path)
    change(tmp_path, **keys)
    with pytest.raises(OutputExists, match=message) as caught:
        ScanPlan.load(tmp_path)
    assert str(caught.value).endswith("run gwas or gwas-plan with overwrite=true to start afresh")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\udcff"])
def test_what_is_no_plan_is_refused(tmp_path, text):
    planned_path(tmp_path).parent.mkdir()
    planned_path(tmp_path).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(OutputExists, match="planned.json: is damaged; run gwas or gwas-plan with overwrite=true"):
        ScanPlan.load(tmp_path)


def test_every_verb_refuses_a_plan_of_another_format_and_overwrite_makes_it_anew(planned):
    out, tree = planned
    change(out, format_version=FORMAT_VERSION + 1)
    for call in (
        lambda: phases.gwas_plan(GwasPlanConfig.parse(tree)),
        lambda: phases.gwas_part(GwasPartConfig.parse(tree | {"part": "0"})),
        lambda: phases.gwas_finish(GwasFinishConfig.parse(tree)),
        lambda: gwas(GwasPlanConfig.parse(tree)),
    ):
        with pytest.raises(OutputExists, match=f"its format_version is {FORMAT_VERSION + 1}"):
            call()
    assert unfinished(out, contents=False).parts == {"done": 0, "total": None}
    phases.gwas_plan(GwasPlanConfig.parse(tree | {"overwrite": True}))
    assert unfinished(out, contents=False).parts == {"done": 0, "total": 3}
    phases.gwas_part(GwasPartConfig.parse(tree | {"part": "0-2"}))
    phases.gwas_finish(GwasFinishConfig.parse(tree))
    assert read_manifest(out)["facts"]["n_variants"] == 30
