"""Lists of people: headers where the format has none, and ids that do not match."""

from __future__ import annotations

import pandas as pd
import pytest

from hpc.errors import InputError
from udipdist import ids

NAMES = ["FID", "IID", "father", "mother", "sex", "phenotype"]


@pytest.mark.parametrize(
    ("first", "rows"),
    [
        ("#FID IID PAT MAT SEX PHENO1", 1),
        ("FID IID PAT MAT SEX PHENO1", 1),
        ("fid iid a b c d", 1),
        ("F9 I9 0 0 sex phenotype", 1),
        ("F9 I9 0 0 1 -9", 0),
        ("sex sex 0 0 1 -9", 0),
        ("F9 I9 0 0 SEX height", 1),
        *((f"F9 I9 0 0 {code} {code}", 0) for code in ("NA", ".", "U", "nan", "?", "-", "unknown")),
        ("F9 I9 0 0 female NA", 0),
        ("F9 I9 0 0 M case", 0),
    ],
)
def test_a_header_is_told_from_a_person(first, rows):
    table = pd.DataFrame([first.split(), ["F0", "I0", "0", "0", "1", "-9"]], columns=NAMES)
    assert ids.header_rows(table, "a.fam", ("sex", "phenotype")) == rows


def test_what_may_be_a_header_or_a_person_is_refused():
    table = pd.DataFrame([["F9", "I9", "0", "0", "left", "right"], ["F0", "I0", "0", "0", "1", "-9"]], columns=NAMES)
    with pytest.raises(InputError, match=r"a.fam, line 1: F9 I9 0 0 left right is a header or a person"):
        ids.header_rows(table, "a.fam", ("sex", "phenotype"))
    table.iloc[1, 4:] = "left"
    assert ids.header_rows(table, "a.fam", ("sex", "phenotype")) == 0


def test_several_comments_and_a_header():
    table = pd.DataFrame([["#made", "by"], ["#FID", "IID"], ["1", "1"]], columns=["FID", "IID"])
    assert ids.header_rows(table, "a") == 2
    assert ids.header_rows(table.iloc[2:], "a") == 0


def people(*names: str) -> pd.DataFrame:
    return pd.DataFrame([name.split() for name in names], columns=["FID", "IID"])


@pytest.mark.parametrize(
    ("ours", "theirs", "hint"),
    [
        (people("1 1", "2 2"), people("0 1", "0 2"), "type match=iid"),
        (people("0012 0012"), people("12 12"), "leading zeros"),
        (people("a a1"), people("A A1"), "capital letters"),
        (people("f i"), people("f_i f_i"), "joins FID and IID with _"),
        (people("a b"), people("c d"), ""),
    ],
)
def test_what_would_make_ids_match_is_said(ours, theirs, hint):
    assert (hint in ids.hint(ours, theirs)) if hint else ids.hint(ours, theirs) == ""
    assert f"{ours.FID[0]} {ours.IID[0]}" in ids.mismatch(ours, theirs)
    assert f"{theirs.FID[0]} {theirs.IID[0]}" in ids.mismatch(ours, theirs)
