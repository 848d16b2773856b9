"""Codes of diagnoses to phecodes, and who counts as what. The map is invented."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hpc.errors import InputError
from udipdist.analysis.phewas import icd, phenome

MAP = """code\tvocabulary\tphecode
A01\tICD10\t008.1
A01.2\tICD10\t008.11
A02\tICD10\t008.2
B10\tICD10\t250.2
B10.9\tICD10\t250.21
C20\tICD10\t401
C20\tICD10\t402.1
401\tICD9\t401
"""
EVENTS = """eid,code,vocabulary,date
1,A012,ICD10,2010-01-01
1,a01.2,icd-10,2011-01-01
2,A01,ICD10,2010-01-01
2,A01.7,ICD10,2010-01-01
3,C20.33,ICD10,2010-01-01
3,401,ICD9,2012-01-01
4,Z99,ICD10,2012-01-01
"""
PEOPLE = pd.DataFrame({"FID": list("12345"), "IID": list("12345")})


@pytest.fixture
def files(tmp_path):
    (tmp_path / "map.tsv").write_text(MAP)
    (tmp_path / "events.csv").write_text(EVENTS)
    return tmp_path


def from_events(files, people=PEOPLE, rollup=True) -> pd.DataFrame:
    found = phenome.from_events(files / "events.csv", files / "map.tsv", people, 2, rollup)
    return pd.DataFrame(found.status_PN.T, columns=found.codes, index=people.IID)


def test_spellings_of_a_code_are_one():
    assert {icd.normalise(code) for code in ("I48.9", "I489", " i48.9")} == {"I489"}
    assert icd.phecodes_of("A01.25", {"A01": ["x"], "A012": ["y"]}) == ["y"]
    assert icd.phecodes_of("A019", {"A01": ["x"], "A012": ["y"]}) == ["x"]
    assert icd.phecodes_of("A0", {"A01": ["x"]}) == [] and icd.phecodes_of("V1", {"V1": ["z"]}) == ["z"]


def test_parents_of_a_phecode():
    assert icd.parents("411.11") == ["411.1", "411"] and icd.parents("008") == []


def test_two_dates_make_a_case_and_one_is_not_known(files):
    status = from_events(files)
    assert list(status) == ["008", "008.1", "008.11", "401", "402", "402.1"]
    assert status.loc["1", ["008", "008.1", "008.11"]].tolist() == [1, 1, 1]
    assert status.loc["2", ["008", "008.1", "008.11"]].tolist() == [-1, -1, 0]  # two codes of one day
    assert status.loc["3", ["401", "402", "402.1"]].tolist() == [1, -1, -1]  # both vocabularies
    assert (status.loc[["4", "5"]] == 0).all(axis=None)


def test_without_rollup_parents_are_not_made(files):
    assert list(from_events(files, rollup=False)) == ["008.1", "008.11", "401", "402.1"]


def test_codes_of_one_sex_and_ranges_of_exclusion(files):
    (files / "definitions.tsv").write_text(
        "phecode\tphenotype\tphecode_exclude_range\tsex\tcategory\n008\tgut\t001-009.99\tBoth\tinfections\n"
        "401\tpressure\t\tMale\tcirculation\n402.1\tother\t400-409\t\t\n"
    )
    found = phenome.from_events(files / "events.csv", files / "map.tsv", PEOPLE, 2, True)
    definitions = phenome.read_definitions(files / "definitions.tsv", found.codes)
    assert definitions.loc["402.1", ["sex", "category"]].tolist() == ["Both", "other"]
    status, facts = phenome.refine(found, definitions, np.array([1, 0, 1, 1, 0], bool), True)
    table = pd.DataFrame(status.T, columns=found.codes, index=PEOPLE.IID)
    assert table["401"].tolist() == [0, -1, 1, 0, -1]
    assert table["008"].tolist() == [1, -1, 0, 0, 0] and facts["of_other_sex"] == 2
    assert phenome.refine(found, definitions, None, False)[1] == {"of_other_sex": 0, "excluded": 0}


def test_controls_with_a_related_record_are_left_out():
    status = np.array([[1, 0, 0], [0, 1, 0]], np.int8)
    found = phenome.Phenome(None, PEOPLE[:3], ["401", "402.1"], status, status == 1, {})
    definitions = pd.DataFrame({"sex": ["Both"] * 2, "exclude": ["400-403", "390-395, 402"]}, index=found.codes)
    refined, facts = phenome.refine(found, definitions, None, True)
    assert refined.tolist() == [[1, -1, 0], [0, 1, 0]] and facts["excluded"] == 1


def test_a_table_of_phecodes_keeps_zeros(tmp_path):
    (tmp_path / "p.tsv").write_text("FID\tIID\t008\t401.1\n1\t1\t0\t1\n2\t2\tNA\t0\n")
    found = phenome.from_table(tmp_path / "p.tsv", "fid_iid", None)
    assert found.codes == ["008", "401.1"] and found.status_PN.tolist() == [[0, -1], [1, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FID\tIID\t8\n1\t1\t0\n2\t2\t1\n", "phecode 8 has lost its zeros .* as 008"),
        ("FID\tIID\t401\n1\t1\t2\n2\t2\t1\n", "phecode 401 of 1 1 is 2; it must be 0, 1 or NA"),
    ],
    ids=["zeros", "value"],
)
def test_tables_that_cannot_be_meant_are_refused(tmp_path, text, message):
    (tmp_path / "p.tsv").write_text(text)
    with pytest.raises(InputError, match=message):
        phenome.from_table(tmp_path / "p.tsv", "fid_iid", None)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("map.tsv", "phecode", "group", "has no column phecode"),
        ("map.tsv", "008.2", "8.2", "phecode 8.2 has lost its zeros"),
        ("events.csv", "date", "when", "has no column date"),
        ("events.csv", "2011-01-01", "", r"1 of 7 events have no date \(the first in row 2\)"),
        ("events.csv", "2011-01-01", "soon", "row 2 has the date 'soon'"),
        ("events.csv", "eid", "who", "has no column IID"),
    ],
    ids=["map's column", "map's zeros", "column", "no date", "bad date", "no id"],
)
def test_events_and_maps_that_do_not_fit_are_refused(files, name, old, new, message):
    (files / name).write_text((files / name).read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        from_events(files)


def test_phecodes_as_numbers_in_parquet_are_refused(files):
    pd.read_csv(files / "map.tsv", sep="\t").to_parquet(files / "map.parquet")
    with pytest.raises(InputError, match="phecode is a column of numbers"):
        icd.read_map(files / "map.parquet")


def test_events_of_others_or_of_another_vocabulary_are_refused(files):
    with pytest.raises(InputError, match=r"none of its 3 people \(1, 2 and 1 more\) is among the 1 with latents \(9\)"):
        from_events(files, pd.DataFrame({"FID": ["9"], "IID": ["9"]}))
    (files / "events.csv").write_text(EVENTS.replace("ICD10", "READ").replace("icd-10", "READ").replace("ICD9", "READ"))
    with pytest.raises(InputError, match="none of its codes .* give the map of this vocabulary"):
        from_events(files)


def test_people_with_one_iid_are_refused(files):
    with pytest.raises(InputError, match="1 is the IID of two people"):
        from_events(files, pd.DataFrame({"FID": ["1", "2"], "IID": ["1", "1"]}))


def test_definitions_of_other_codes_are_refused(files):
    (files / "d.tsv").write_text("phecode\tsex\n999\tBoth\n")
    with pytest.raises(InputError, match="defines none of the 1 phecodes"):
        phenome.read_definitions(files / "d.tsv", ["008"])
