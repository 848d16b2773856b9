"""Tables of people: every kind reads alike, and every table that is not what it should be is refused."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest

from hpc.errors import InputError
from udipdist.people import tables


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
    assert tables.column_names(path) == ["x", "y"]


def test_minus_nine_is_missing_in_a_text_phenotype_only(tmp_path):
    (tmp_path / "t.txt").write_text("FID IID x\na 1 -9\nb 2 -9.5\n")
    assert np.isnan(tables.read_phenotypes(tmp_path / "t.txt", "fid_iid")[2]).ravel().tolist() == [True, False]
    assert tables.read_covariates(tmp_path / "t.txt", "fid_iid").x.tolist() == [-9, -9.5]


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
    with pytest.raises(InputError, match=r"covariate age of b 2 \(row 2\) is 'old' among numbers"):
        tables.read_covariates(tmp_path / "t.txt", "fid_iid")
