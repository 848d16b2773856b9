"""Folders and tables of volumes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.errors import ConfigError, InputError
from udipdist.volumes.sources import Scan, Source, Unused, list_cohort
from udipdist.volumes.sources.table import list_table


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "scans").mkdir()
    for name in ("0007.nii.gz", "12.nii", "s.1.mgz", "notes.txt", "._12.nii"):
        (tmp_path / "scans" / name).touch()
    return tmp_path / "scans"


def table(folder, text, name="list.csv"):
    path = folder.parent / name
    path.write_text(text, encoding="utf-8")
    return path


def scan_of(path):
    """The only scan of the only source."""
    (source,) = list_cohort(path).sources
    (scan,) = source.scans
    return scan


def test_folder(folder):
    cohort = list_cohort(folder)
    assert cohort.modalities == ("image",)
    assert cohort.sources == [
        Source(iid, iid, (Scan(folder / name),))
        for iid, name in (("0007", "0007.nii.gz"), ("12", "12.nii"), ("s.1", "s.1.mgz"))
    ]


def test_csv_keeps_order_and_leading_zeros(folder):
    path = table(folder, "\ufeffFID,EID,T1,T2\nf2, 0012 ,scans/12.nii,\nf1,007,scans/0007.nii.gz,x\n\n")
    cohort = list_cohort(path)
    assert cohort.modalities == ("T1",)
    assert cohort.sources == [
        Source("f2", "0012", (Scan(folder / "12.nii"),)),
        Source("f1", "007", (Scan(folder / "0007.nii.gz"),)),
    ]


@pytest.mark.parametrize("head", ["IID\tT1", "subject\tT1", "eid\tT1"])
def test_other_names_tabs_and_absolute_paths(folder, head):
    path = table(folder, f"{head}\n1\t{folder / '12.nii'}\n", "list.tsv")
    assert list_cohort(path).sources == [Source("1", "1", (Scan(folder / "12.nii"),))]


def test_columns(folder):
    path = table(folder, "EID,T1,T2\n1,scans/12.nii,scans/s.1.mgz\n2,,scans/0007.nii.gz\n")
    one, two, three = (Scan(folder / name) for name in ("12.nii", "s.1.mgz", "0007.nii.gz"))
    assert [s.scans for s in list_cohort(path).sources] == [(one,), (None,)]
    assert [s.scans for s in list_cohort(path, modalities=["T2"]).sources] == [(two,), (three,)]
    both = list_cohort(path, modalities=["T2", "T1"])
    assert both.modalities == ("T2", "T1")
    assert [s.scans for s in both.sources] == [(two, one), (three, None)]
    with pytest.raises(InputError, match=r"no column T3 of paths; give modalities= of T1, T2, as modalities=\[T1\]"):
        list_cohort(path, modalities=["T2", "T3"])
    with pytest.raises(ConfigError, match="leave it out"):
        list_cohort(folder, modalities=["T1"])


def test_the_first_of_duplicates_is_kept_and_the_others_are_listed(folder):
    path = table(folder, "EID,FID,T1\n1,a,scans/12.nii\n2,b,scans/0007.nii.gz\n1,c,scans/s.1.mgz\n1,d,scans/12.nii\n")
    cohort = list_cohort(path)
    assert [(s.fid, s.iid, s.scans[0].name) for s in cohort.sources] == [
        ("a", "1", "12.nii"),
        ("b", "2", "0007.nii.gz"),
    ]
    reason = f"is a duplicate: subject 1 has {folder / '12.nii'} already, which is kept"
    assert cohort.unused == [
        Unused("c", "1", str(folder / "s.1.mgz"), reason),
        Unused("d", "1", str(folder / "12.nii"), reason),
    ]
    (folder / "12.nii.gz").touch()
    (duplicate,) = list_cohort(folder).unused
    assert (duplicate.iid, duplicate.file) == ("12", str(folder / "12.nii.gz"))


@pytest.mark.parametrize(
    ("pattern", "ids"),
    [
        ("sub-*/anat/T1.nii.gz", ["01", "02"]),
        ("*/anat/T1.nii*", ["sub-01", "sub-02", "x"]),
        ("*/anat/T1.nii.gz", ["sub-01", "sub-02", "x"]),
        ("*/anat/*.nii.gz", ["T1", "T2"]),
        ("sub-0[1]/anat/T1.nii.gz", ["1"]),
        ("**/flat/*_T1.nii*", ["1001", "1002"]),
        ("flat/100?_T1.nii", ["2"]),
        ("flat/*", ["1001_T1", "1002_T1"]),
        ("fl*/../flat/1001*", ["_T1"]),
    ],
)
def test_pattern(tmp_path, pattern, ids):
    for name in ("sub-01", "sub-02", "x"):
        (tmp_path / name / "anat").mkdir(parents=True)
        (tmp_path / name / "anat" / "T1.nii.gz").touch()
    (tmp_path / "x" / "anat" / "T2.nii.gz").touch()
    (tmp_path / "flat").mkdir()
    for name in ("1001_T1.nii.gz", "1002_T1.nii", "notes.txt", ".hidden.nii"):
        (tmp_path / "flat" / name).touch()
    cohort = list_cohort(tmp_path / pattern)
    assert [s.iid for s in cohort.sources] == ids
    assert all(s.fid == s.iid and s.scans[0].path.is_file() and s.scans[0].path.is_absolute() for s in cohort.sources)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.booleans()), min_size=1))
def test_every_cell_is_taken_once_or_listed(rows):
    with tempfile.TemporaryDirectory() as place:
        lines = ["EID,T1,T2"]
        for number, (iid, *there) in enumerate(rows):
            names = [f"{number}{modality}.nii" if seen else "" for modality, seen in zip("xy", there, strict=True)]
            lines.append(",".join([iid, *names]))
            for name in filter(None, names):
                (Path(place) / name).touch()
        path = Path(place) / "list.csv"
        path.write_text("\n".join(lines))
        cohort = list_table(path, ["T1", "T2"])
        assert [s.iid for s in cohort.sources] == list(dict.fromkeys(row[0] for row in rows))
        taken = [scan.source for source in cohort.sources for scan in source.scans if scan]
        listed = [duplicate.file for duplicate in cohort.unused if duplicate.file]
        assert len(cohort.unused) >= len(rows) - len(cohort.sources)
        assert sorted(taken + listed) == sorted(str(p) for p in Path(place).glob("*.nii"))


def test_patterns_without_ids(folder, tmp_path):
    (folder / "a_T1.nii").touch()
    (folder / "_T1.nii").touch()
    with pytest.raises(InputError, match="the wildcards match nothing in .*/_T1.nii, so it has no id"):
        list_cohort(folder / "*_T1.nii")
    with pytest.raises(InputError, match="does not say what the ids are; put a \\* in place of the id"):
        list_cohort(tmp_path / "**" / "a_T1.nii")
    with pytest.raises(InputError, match="finds no .*quote it"):
        list_cohort(folder / "*.txt")
    odd = tmp_path / "scans [1]"
    odd.mkdir()
    (odd / "7.nii").touch()
    assert scan_of(odd).name == "7.nii"  # a folder that is there is no pattern


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("EID,T1\n", "no rows"),
        ("name,T1\n1,scans/12.nii\n", "no column EID"),
        ("EID,FID\n1,1\n", "no column of paths"),
        ("EID,T1,T1\n1,a,b\n", "T1 are repeated"),
        ("EID,T1\n1,scans/12.nii\n2\n", "line 3: is not a table row with 2 columns but 1 cells"),
        ("EID,T1\n,scans/12.nii\n", "line 2: an id is empty"),
        ("EID,FID,T1\n1,,scans/12.nii\n", "line 2: an id is empty"),
        ("EID,T1\n1,scans/12.nii\n2,scans/13.nii\n", "1 of 2 paths do not exist, or are not files \\(.*13.nii\\)"),
    ],
)
def test_bad_tables(folder, text, message):
    with pytest.raises(InputError, match=message):
        list_cohort(table(folder, text))


def test_other_mistakes(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        list_cohort(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no \\*.nii.gz"):
        list_cohort(tmp_path / "empty")
    (tmp_path / "empty" / "13.nii.gz").mkdir()
    with pytest.raises(InputError, match="holds no \\*.nii.gz"):
        list_cohort(tmp_path / "empty")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not a text table"):
        list_cohort(tmp_path / "binary.csv")
