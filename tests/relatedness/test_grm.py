"""Families and their decomposition, and GRM files that are not what they should be."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from hpc.errors import InputError
from udipdist.relatedness import grm


@given(st.integers(0, 10_000), st.integers(1, 40))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_the_decomposition_gives_g_back(seed, n):
    rng = np.random.default_rng(seed)
    family = rng.integers(0, n, n)
    factor = rng.standard_normal((n, n))
    dense = np.where(family[:, None] == family, factor @ factor.T, 0.0)
    families = grm.decompose(sparse.csr_array(dense), max_family=n)
    u, order = families.matrix().toarray(), families.order_N
    np.testing.assert_allclose(u @ np.diag(families.d_N) @ u.T, dense[np.ix_(order, order)], atol=1e-9 * n)
    np.testing.assert_allclose(u.T @ u, np.eye(n), atol=1e-12 * n)
    _, sizes = np.unique(family, return_counts=True)
    assert sorted(families.size_F) == sorted(sizes[sizes > 1]) and families.n_single == (sizes == 1).sum()


def test_negative_eigenvalues_become_zero_and_are_reported(caplog):
    families = grm.decompose(sparse.csr_array([[1.0, 1.2], [1.2, 1.0]]), 10)
    np.testing.assert_allclose(families.d_N, [0, 2.2], atol=1e-12)
    assert "1 negative eigenvalues" in caplog.text


def test_a_large_family_is_refused_with_the_cutoff_that_splits_it():
    """A chain of relatives 0-1-2-3-4-5 with relatedness 0.5 0.3 0.1 0.4 0.2: above 0.2, no group exceeds three."""
    dense = np.eye(6)
    for i, value in enumerate((0.5, 0.3, 0.1, 0.4, 0.2)):
        dense[i, i + 1] = dense[i + 1, i] = value
    with pytest.raises(InputError, match=r"has 6 people, more than max_family=3; keep only pairs above 0.1000"):
        grm.decompose(sparse.csr_array(dense), max_family=3)
    with pytest.raises(InputError, match="above 0.3000"):
        grm.decompose(sparse.csr_array(dense), max_family=2)
    for cutoff, largest in ((0.1, 3), (0.3, 2)):
        cut = np.where((dense > cutoff) | np.eye(6, dtype=bool), dense, 0.0)
        assert grm.decompose(sparse.csr_array(cut), max_family=largest).size_F.max() == largest


@pytest.fixture
def files(tmp_path):
    (tmp_path / "c.grm.id").write_text("a\t1\nb\t2\nc\t3\n")
    (tmp_path / "c.grm.sp").write_text("0\t0\t1.01\n1\t0\t0.5\n1\t1\t0.99\n2\t2\t1\n")
    return tmp_path / "c"


def test_reading(files):
    people, matrix = grm.read(str(files))
    assert list(people.IID) == ["1", "2", "3"]
    np.testing.assert_array_equal(matrix.toarray(), [[1.01, 0.5, 0], [0.5, 0.99, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0 1\n1 1 1\n2 2 1\n3 0 .5\n", r"line 4: row is 3, not a row number 0..2"),
        ("0 0 1\n1 1 1\n2 2 1\n1 0 x\n", "line 4: value is x, not a number"),
        ("0 0 1\n1 1 1\n2 2 nan\n", "line 3: value is"),
        ("0 0 1\n1 1 1\n2 2 1\n1 0 .5\n0 1 .4\n", "line 5: the pair 0 1 is listed twice, with 0.4 and 0.5"),
        ("0 0 1\n1 1 1\n", r"no diagonal entry for 1 people \(row 2\)"),
        ("0 0 1 9\n1 1 1 9\n", "has 4 columns, not 3"),
        ("", "is not a table"),
    ],
)
def test_broken_grms_are_refused(files, text, message):
    files.with_name("c.grm.sp").write_text(text)
    with pytest.raises(InputError, match=message):
        grm.read(str(files))


@pytest.mark.parametrize("header", ["FID\tIID\n", "#FID\tIID\n"])
def test_a_header_is_skipped(files, header, caplog):
    """As plink2 writes one with id-header: rows of .grm.sp count from the people, not from the header."""
    caplog.set_level("INFO")
    before = grm.read(str(files))
    ids = files.with_name("c.grm.id")
    ids.write_text(header + ids.read_text())
    people, matrix = grm.read(str(files))
    pd.testing.assert_frame_equal(people, before[0])
    assert (matrix != before[1]).nnz == 0 and "its first line is a header" in caplog.text


def test_ids_alone_have_the_family_0_as_plink2_writes_them(files):
    ids, before = files.with_name("c.grm.id"), grm.read(str(files))[0]
    ids.write_text("#IID\n" + "".join(f"{iid}\n" for iid in before.IID))
    people, _ = grm.read(str(files))
    pd.testing.assert_frame_equal(people, before.assign(FID="0"))
    ids.write_text("".join(f"{iid}\n" for iid in before.IID))
    with pytest.raises(InputError, match="has 1 columns, not 2"):
        grm.read(str(files))


def test_byte_order_marks_and_blank_lines(files):
    before = grm.read(str(files))
    for name in ("c.grm.id", "c.grm.sp"):
        path = files.with_name(name)
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\n\n"))
    people, matrix = grm.read(str(files))
    pd.testing.assert_frame_equal(people, before[0])
    assert (matrix != before[1]).nnz == 0
    files.with_name("c.grm.sp").write_text("\n0 0 1\n\n1 1 x\n")
    with pytest.raises(InputError, match="c.grm.sp, line 4: value is x"):
        grm.read(str(files))


def test_both_triangles_are_read_where_they_agree(files):
    before = grm.read(str(files))[1]
    path = files.with_name("c.grm.sp")
    lines = [line.split() for line in path.read_text().splitlines()]
    mirrored = [f"{b}\t{a}\t{value}" for a, b, value in lines if a != b]
    path.write_text("\n".join(["\t".join(line) for line in lines] + mirrored) + "\n")
    assert (grm.read(str(files))[1] != before).nnz == 0


def test_people_who_stand_there_twice_are_named(files):
    files.with_name("c.grm.id").write_text("a\t1\na\t1\nc\t3\n")
    people, _ = grm.read(str(files))
    with pytest.raises(InputError, match=r"c.grm.id: 1 people are listed more than once \(a 1\)"):
        grm.rows_of(str(files), people, people.iloc[2:], "fid_iid")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"nope\.grm\.id: does not exist; sparse_grm= is the prefix"):
        grm.read(str(tmp_path / "nope"))


def test_a_grm_of_unrelated_people_is_the_identity(caplog):
    with caplog.at_level(logging.WARNING):
        families = grm.decompose(sparse.csr_array(np.eye(4)), 10)
    assert families.n_single == 4 and len(families.u) == 0 and not caplog.text
    np.testing.assert_array_equal(families.d_N, grm.Families.unrelated(4).d_N)


def test_the_cutoff_told_splits_every_family_that_is_too_large():
    """Two trios, bound by 0.5 and 0.3, and by 0.4 and 0.45: pairs only where all weaker links go."""
    dense = np.eye(6)
    for i, j, value in ((0, 1, 0.5), (1, 2, 0.3), (3, 4, 0.4), (4, 5, 0.45)):
        dense[i, j] = dense[j, i] = value
    assert grm.splitting_cutoff(sparse.csr_array(dense), 2) == 0.4
    assert grm.splitting_cutoff(sparse.csr_array(dense), 3) == 0.0
    with pytest.raises(InputError, match=r"has 3 people, .* above 0.4000 .*udipdist grm cutoff=0.4001"):
        grm.decompose(sparse.csr_array(dense), max_family=2)


@given(st.integers(0, 10_000), st.integers(1, 30))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_what_is_written_is_read(tmp_path_factory, seed, n):
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((n, n)) < 0.2, rng.uniform(-0.1, 1, (n, n)), 0.0)
    dense = np.tril(dense, -1) + np.tril(dense, -1).T + np.diag(rng.uniform(0.9, 1.1, n))
    prefix = tmp_path_factory.mktemp("grm") / "w"
    ids = pd.DataFrame({"FID": [f"F{i}" for i in range(n)], "IID": [f"{i}" for i in range(n)], "sex": 1})
    grm.write(str(prefix), ids, sparse.csr_array(dense))
    people, matrix = grm.read(str(prefix))
    assert people.equals(ids[["FID", "IID"]])
    np.testing.assert_allclose(matrix.toarray(), dense, rtol=1e-7, atol=0)
    rows = np.loadtxt(f"{prefix}.grm.sp", ndmin=2)
    assert (rows[:, 0] >= rows[:, 1]).all() and (np.diff(rows[:, 0] * n + rows[:, 1]) > 0).all()
