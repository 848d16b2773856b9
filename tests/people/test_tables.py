"""Tables of people: every kind reads alike, and every table that is not what it should be is refused."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest

from hpc.errors import InputError
from udipdist.people import raw, tables


@pytest.mark.parametrize("kind", ["tab", "comma", "blank", "gzip", "hash", "windows", "spaced", "parquet"])
def test_tables_of_every_kind_read_alike(tmp_path, kind):
    table = pd.DataFrame({"FID": ["01", "b"], "IID": ["1", "002"], "x": [1.5, np.nan], "y": [-3.0, 1e-30]})
    path = tmp_path / ("t.parquet" if kind == "parquet" else "t.tsv.gz" if kind == "gzip" else "t.txt")
    if kind == "parquet":
        table.to_parquet(path)
    else:
        text = table.to_csv(sep={"comma": ",", "blank": " "}.get(kind, "\t"), index=False, na_rep="NA")
        text = "#" + text if kind == "hash" else text
        if kind == "windows":
            text = "\ufeff" + text.replace("\n", "\r\n")
        elif kind == "spaced":
            text = text.replace("\t", " , ")
        path.write_bytes(gzip.compress(text.encode()) if kind == "gzip" else text.encode())
    people, traits, values = tables.read_phenotypes(path, "fid_iid")
    assert people.to_numpy().tolist() == [["01", "1"], ["b", "002"]] and traits == ["x", "y"]
    np.testing.assert_array_equal(values, [[1.5, -3.0], [np.nan, 1e-30]])
    assert raw.column_names(path) == ["x", "y"]


@pytest.mark.parametrize(
    ("text", "missing", "values", "told"),
    [
        ("FID IID x\na 1 -9\nb 2 -9.5\nc 3 -9.0\n", None, [np.nan, -9.5, np.nan], "x: 2 -9"),
        ("FID IID x\na 1 -9\nb 2 -9.5\n", [], [-9, -9.5], None),
        ("FID IID x\na 1 -9\nb 2 -999\n", ["-999"], [-9, np.nan], "x: 1 -999"),
        ("eid,x\n1,-9\n2,\n3,4\n", None, [-9, np.nan, 4], "x: 1 empty"),
        ("eid,x\n1,-9\n2,5\n3,4\n", ["-9", "NA"], [np.nan, 5, 4], "x: 1 -9"),
        (
            "FID,IID,x\na,1,n/a\nb,2,.\nc,3,nan\nd,4,NULL\ne,5,7\n",
            None,
            [np.nan] * 4 + [7],
            "1 n/a, 1 ., 1 nan, 1 NULL",
        ),
    ],
)
def test_missing_codes_alike_in_phenotypes_and_covariates(tmp_path, caplog, text, missing, values, told):
    (tmp_path / "t.txt").write_text(text)
    caplog.set_level("INFO")
    np.testing.assert_array_equal(tables.read_phenotypes(tmp_path / "t.txt", "fid_iid", missing)[2][:, 0], values)
    np.testing.assert_array_equal(tables.read_covariates(tmp_path / "t.txt", "fid_iid", missing).x, values)
    assert told in caplog.text if told else "as missing" not in caplog.text


def test_numbers_of_parquet_have_no_codes_but_those_given(tmp_path):
    table = pd.DataFrame({"FID": "f", "IID": [1, 2, 3], "x": [-9.0, 1.0, 2.0], "y": ["NA", "-9", "3"]})
    table.to_parquet(tmp_path / "t.parquet")
    assert (
        str(tables.read_phenotypes(tmp_path / "t.parquet", "iid")[2].tolist())
        == "[[-9.0, nan], [1.0, -9.0], [2.0, 3.0]]"
    )
    values = tables.read_phenotypes(tmp_path / "t.parquet", "iid", ["-9"])[2]
    assert str(values.tolist()) == "[[nan, nan], [1.0, nan], [2.0, 3.0]]"


def test_codes_that_may_be_values_and_values_that_may_be_codes_are_told(tmp_path, caplog):
    rows = [(-9, 1.0), (-8, 2.0), (-10, 1.5), (-12, 99999)]
    (tmp_path / "t.txt").write_text("FID IID x y\n" + "".join(f"f {i} {x} {y}\n" for i, (x, y) in enumerate(rows)))
    values = tables.read_phenotypes(tmp_path / "t.txt", "fid_iid")[2]
    assert np.isnan(values[0, 0]) and values[3, 1] == 99999
    assert "x is -9 for 1 people, and is taken as missing, but its other values go from -12 to -8" in caplog.text
    assert "y is 99999 for 1 people, far from all other values (1 to 2)" in caplog.text
    assert "type missing=[-9, 99999]" in caplog.text


def test_missing_values_of_many_columns_are_counted_in_one_line(tmp_path, caplog):
    names = [f"z{i}" for i in range(9)]
    (tmp_path / "t.txt").write_text(f"FID IID {' '.join(names)}\na 1 {'NA ' * 9}\nb 2 {'1 ' * 9}\n")
    caplog.set_level("INFO")
    tables.read_table(tmp_path / "t.txt", "fid_iid")
    assert "values taken as missing: 9 in 9 columns ('NA')" in caplog.text


IDS = [["01", "1"], ["b", "002"]]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("fid iid x\n01 1 5\nb 002 6\n", IDS),
        ("#FID #IID x\n01 1 5\nb 002 6\n", IDS),
        ('"","FID","IID","x"\n"1","01","1",5\n"2","b","002",6\n', IDS),
        ("FID IID x\n7 01 1 5\n9 b 002 6\n", IDS),
        ("FID;IID;x\n01;1;5,0\nb;002;6,0\n", IDS),
        ("eid,x\n01,5\n002,6\n", [["01", "01"], ["002", "002"]]),
        ("participant_id\tx\nsub-01\t5\nsub-002\t6\n", [["01", "01"], ["002", "002"]]),
        ("participant.eid,x\n01,5\n002,6\n", [["01", "01"], ["002", "002"]]),
    ],
)  # fmt: skip
def test_ids_in_every_spelling(tmp_path, text, ids):
    (tmp_path / "t.txt").write_text(text)
    people, traits, values = tables.read_phenotypes(tmp_path / "t.txt", "fid_iid")
    assert people.to_numpy().tolist() == ids and traits == ["x"] and values.tolist() == [[5], [6]]
    assert raw.column_names(tmp_path / "t.txt") == ["x"]


@pytest.mark.parametrize(
    ("name", "text", "traits"),
    [
        ("t.phen", "01 1 5\nb 002 6\n", ["PHENO1"]),
        ("t.phen", "01 1 5 -9\nb 002 6 1e3\n", ["PHENO1", "PHENO2"]),
        ("t.fam", "01 1 0 0 1 5\nb 002 0 0 2 6\n", ["PHENO1"]),
        ("t.fam", "#FID IID PAT MAT SEX y\n01 1 0 0 1 5\nb 002 0 0 2 6\n", ["y"]),
        ("t.psam", "#FID IID SEX y\n01 1 1 5\nb 002 2 6\n", ["y"]),
    ],
)
def test_tables_of_plink_and_gcta(tmp_path, name, text, traits):
    (tmp_path / name).write_text(text)
    people, found, values = tables.read_phenotypes(tmp_path / name, "fid_iid")
    assert people.to_numpy().tolist() == IDS and found == traits and values[:, 0].tolist() == [5, 6]
    assert raw.column_names(tmp_path / name) == traits


def test_decimal_commas_elsewhere_are_named(tmp_path):
    (tmp_path / "t.txt").write_text("FID IID x\na 1 2,5\n")
    with pytest.raises(InputError, match="'2,5', not a number; .* and decimal points, not commas"):
        tables.read_phenotypes(tmp_path / "t.txt", "fid_iid")


def test_dates_are_years_and_codes_of_text_are_categories(tmp_path):
    (tmp_path / "t.csv").write_text("eid,53-2.0,54-2.0\n1,2016-01-01,A\n2,,B\n3,2017-01-01,NA\n")
    table = tables.read_covariates(tmp_path / "t.csv", "fid_iid")
    dates = table["53-2.0"].tolist()
    assert dates[2] - dates[0] == pytest.approx(366 / 365.25) and np.isnan(dates[1])
    assert table["54-2.0"].tolist() == ["A", "B", None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FID\tIID\tx\na\t1\t2\na\t1\t3\n", r"1 people are listed more than once \(a 1\)"),
        ("FID\tIID\tx\na\t1\t2\nb\t2\tlow\n", r"trait x of b 2 \(row 2\) is 'low', not a number"),
        ("FID\tIID\tx\na\t1\tinf\n", r"trait x of a 1 \(row 1\) is infinite"),
        ("FID\tIID\tminp\na\t1\t2\n", "a trait is called 'minp'"),
        ("FID\tIID\na\t1\n", "has no column besides FID and IID"),
        ("IID\tx\n1\t2\n", "has no column FID .*match=iid will do without FID"),
        ("a\tb\tx\n1\t2\t3\n", "has no column IID .*the first line must name the columns"),
        ("FID\tIID\tx\tx\na\t1\t2\t3\n", "two columns called 'x'"),
        ("FID\tIID\tx\n\t1\t2\n", "row 1: has no FID"),
        ("FID\tIID\tx\na\t1\t2\t3\t4\n", "line 2: is not a table row with 3 columns but 5 cells"),
        ("FID\tIID\tx\ty\na\t1\t2\t3\nb\t2\t3", "line 3: is not a table row with 4 columns but 3 cells"),
        ("FID IID x\na 1 2\nb 2\n", "line 3: is not a table row with 3 columns but 2 cells"),
        ("FID\tIID\tx\n", "has columns but no rows"),
        ("", "is empty"),
    ],
)
def test_broken_phenotype_tables_are_refused(tmp_path, text, message):
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        tables.read_phenotypes(tmp_path / "t.txt", "fid_iid")


def test_files_that_are_no_tables_are_refused(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"no parquet")
    (tmp_path / "t.txt").write_bytes(bytes(range(128, 256)))
    (tmp_path / "t.tsv.gz").write_bytes(gzip.compress(b"FID IID x\n" + b"a 1 2\n" * 99)[:-20])
    (tmp_path / "folder.tsv").mkdir()
    for name, message in (
        ("t.parquet", "not a Parquet"),
        ("t.txt", "not a text table"),
        ("t.csv", "does not exist"),
        ("t.tsv.gz", "not a t"),
        ("folder.tsv", "is a folder"),
    ):
        with pytest.raises(InputError, match=message):
            tables.read_table(tmp_path / name, "fid_iid")


def test_a_number_column_with_a_word_in_it_is_refused(tmp_path):
    (tmp_path / "t.txt").write_text("FID IID age\na 1 50\nb 2 old\nc 3 60\n")
    table = tables.read_covariates(tmp_path / "t.txt", "fid_iid")
    tables.refuse_mixed(tmp_path / "t.txt", table, [])  # a column that is not used may hold anything
    with pytest.raises(InputError, match=r"covariate age of b 2 \(row 2\) is 'old' among numbers"):
        tables.refuse_mixed(tmp_path / "t.txt", table, ["age"])
