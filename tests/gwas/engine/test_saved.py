"""Records of arrays on disk: what is saved comes back, of the type that the record says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from udipdist.gwas.engine import saved
from udipdist.gwas.engine.digits import Digits


@dataclass(frozen=True, kw_only=True)
class Inner:
    number_N: np.ndarray
    empty_OX: np.ndarray
    digits: Digits


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner
    other: Inner
    count: int
    share: float
    flag: bool


def inner(seed: int) -> Inner:
    rng = np.random.default_rng(seed)
    digits = Digits(
        digit_RX=rng.integers(-128, 128, (5, 4), dtype=np.int8), column_X=np.arange(4), weight_X=256.0 ** np.arange(4),
        unit_C=rng.random(2),
    )  # fmt: skip
    return Inner(number_N=rng.random(7).astype(np.float32), empty_OX=np.empty((0, 3)), digits=digits)


def test_a_record_of_records_comes_back(tmp_path):
    made = Outer(inner=inner(1), other=inner(2), count=3, share=0.1, flag=True)
    saved.save(made, tmp_path / "a" / "b")
    found = saved.load(Outer, tmp_path / "a" / "b")
    assert (found.count, found.share, found.flag) == (3, 0.1, True)
    assert [type(x) for x in (found.count, found.share, found.flag)] == [int, float, bool]
    for name in ("inner", "other"):
        mine, theirs = getattr(made, name), getattr(found, name)
        assert isinstance(theirs, Inner) and isinstance(theirs.digits, Digits)
        for a, b in ((mine.number_N, theirs.number_N), (mine.empty_OX, theirs.empty_OX), *(
            (getattr(mine.digits, field), getattr(theirs.digits, field)) for field in vars(mine.digits)
        )):  # fmt: skip
            assert a.dtype == b.dtype and a.shape == b.shape
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(found.inner.number_N, found.other.number_N)


def test_what_is_read_is_mapped_and_the_file_stays(tmp_path):
    saved.save(inner(1), tmp_path)
    before = (tmp_path / "number_N.npy").read_bytes()
    found = saved.load(Inner, tmp_path)
    found.number_N[:] = 0
    assert (tmp_path / "number_N.npy").read_bytes() == before


def test_a_file_that_is_missing_is_named(tmp_path):
    saved.save(inner(1), tmp_path)
    (tmp_path / "digits.unit_C.npy").unlink()
    with pytest.raises(FileNotFoundError, match="digits.unit_C"):
        saved.load(Inner, tmp_path)
