"""Folders and tables of volumes."""

from __future__ import annotations

import pytest

from hpc.errors import ConfigError, InputError
from udipdist.volumes.sources import Source, list_sources


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


def test_folder(folder):
    assert [(s.fid, s.iid, s.path.name) for s in list_sources(folder)] == [
        ("0007", "0007", "0007.nii.gz"),
        ("12", "12", "12.nii"),
        ("s.1", "s.1", "s.1.mgz"),
    ]


def test_csv_keeps_order_and_leading_zeros(folder):
    path = table(folder, "\ufeffFID,EID,T1,T2\nf2, 0012 ,scans/12.nii,\nf1,007,scans/0007.nii.gz,x\n\n")
    assert list_sources(path) == [
        Source("f2", "0012", folder / "12.nii"),
        Source("f1", "007", folder / "0007.nii.gz"),
    ]


@pytest.mark.parametrize("head", ["IID\tT1", "subject\tT1", "eid\tT1"])
def test_other_names_tabs_and_absolute_paths(folder, head):
    path = table(folder, f"{head}\n1\t{folder / '12.nii'}\n", "list.tsv")
    assert list_sources(path) == [Source("1", "1", folder / "12.nii")]


def test_column(folder):
    path = table(folder, "EID,T1,T2\n1,scans/12.nii,scans/s.1.mgz\n")
    assert list_sources(path)[0].path.name == "12.nii"
    assert list_sources(path, "T2")[0].path.name == "s.1.mgz"
    with pytest.raises(InputError, match="no column 'T3' of paths; give column= one of T1, T2"):
        list_sources(path, "T3")
    with pytest.raises(ConfigError, match="leave column out"):
        list_sources(folder, "T1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("EID,T1\n", "no rows"),
        ("name,T1\n1,scans/12.nii\n", "no column EID"),
        ("EID,FID\n1,1\n", "no column of paths"),
        ("EID,T1,T1\n1,a,b\n", "T1 stand more than once"),
        ("EID,T1\n1,scans/12.nii\n2\n", "line 3: has 1 cells"),
        ("EID,T1\n1,scans/12.nii\n2,\n", "line 3: an id or the path is empty"),
        ("EID,T1\n,scans/12.nii\n", "line 2: an id or the path is empty"),
        ("EID,T1\n1,scans/12.nii\n1,scans/s.1.mgz\n", "1 subject ids stand for more than one volume \\(1\\)"),
        ("EID,T1\n1,scans/12.nii\n2,scans/13.nii\n", "1 of 2 files are not there, or are no files \\(.*13.nii\\)"),
    ],
)
def test_bad_tables(folder, text, message):
    with pytest.raises(InputError, match=message):
        list_sources(table(folder, text))


def test_other_mistakes(folder, tmp_path):
    (folder / "12.nii.gz").touch()
    with pytest.raises(InputError, match="more than one volume \\(12\\)"):
        list_sources(folder)
    with pytest.raises(InputError, match="is not there"):
        list_sources(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no \\*.nii.gz"):
        list_sources(tmp_path / "empty")
    (folder / "12.nii.gz").unlink()
    (folder / "13.nii.gz").mkdir()
    with pytest.raises(InputError, match="1 of 4 files are not there, or are no files .*13.nii.gz"):
        list_sources(folder)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        list_sources(tmp_path / "binary.csv")
