"""What every source of genotypes must hold, as tests to inherit (they need pytest).

A test module of a format has a class with two fixtures, and pytest runs all tests below on them:

    class TestMine(GenotypeSourceTests):
        @pytest.fixture
        def source(self, ...) -> GenotypeSource: ...

        @pytest.fixture
        def expected(self, ...) -> np.ndarray: ...  # copies of A1 [M, N] as another reader has them, -1 where missing

The matrix should have missing calls, and a number of people that is not a multiple of four.
"""

from __future__ import annotations

import itertools
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from hpc.errors import InputError
from udipdist.genotypes.source import GenotypeRows, GenotypeSource, SelectedRows, SourceRecord, decode, open_record

_COPIES = np.array([2, -1, 1, 0])  # of A1, of each code

# Opens a record (JSON) and a pickle in a process that knows nothing else, and reads all rows in two blocks.
_OTHER_PROCESS = """
import json, pickle, sys
import numpy as np
from udipdist.genotypes.source import SourceRecord, open_record

with open("record.json") as file:
    opened = {"record": open_record(SourceRecord(**json.load(file)))}
with open("rows.pickle", "rb") as file:
    opened["pickle"] = pickle.load(file)
form = "packed" if opened["record"].kind == "hard_calls" else "dosages"
for name, rows in opened.items():
    read, middle = getattr(rows, form), len(rows) // 2
    np.save(name + ".npy", np.concatenate([read(0, middle), read(middle, len(rows))]))
"""


class GenotypeSourceTests:
    """See the top of the module. Shapes: M variants, N people, B variants of a block, Q bytes of a packed row."""

    @pytest.fixture
    def source(self) -> GenotypeSource:
        """A source that has just been opened."""
        raise NotImplementedError("give the class a fixture `source`")

    @pytest.fixture
    def expected(self) -> np.ndarray:
        """Copies of A1 at its variants [M, N], -1 where missing, not read by the code that is tested."""
        raise NotImplementedError("give the class a fixture `expected`")

    def test_sizes_and_tables(self, source: GenotypeSource, expected: np.ndarray) -> None:
        m, n = expected.shape
        assert (source.n_variants, source.n_people) == (m, n) == (len(source.rows), source.rows.n_people)
        assert len(source.variants) == m and len(source.people) == n
        assert {"chrom", "snp", "position", "a1", "a2"} <= {*source.variants.columns}
        assert {"FID", "IID", "sex"} <= {*source.people.columns}
        assert source.variants.index.tolist() == list(range(m)) and source.people.index.tolist() == list(range(n))
        assert source.variants["position"].dtype == np.int64 and source.variants["chrom"].dtype == "category"
        for texts in (*(source.people[key] for key in ("FID", "IID", "sex")), source.variants["snp"]):
            assert all(isinstance(text, str) for text in texts)
        assert not source.people.duplicated(["FID", "IID"]).any()

    def test_dosages_are_the_expected_ones(self, source: GenotypeSource, expected: np.ndarray) -> None:
        dosage_MN = source.dosages(0, source.n_variants)
        assert dosage_MN.dtype == np.float32
        np.testing.assert_array_equal(dosage_MN, _with_nan(expected))

    def test_packed_rows_are_the_expected_ones(self, source: GenotypeSource, expected: np.ndarray) -> None:
        if source.kind == "dosages":
            with pytest.raises(InputError, match="holds dosages"):
                source.packed(0, 1)
            return
        packed_MQ = source.packed(0, source.n_variants)
        assert packed_MQ.dtype == np.uint8 and packed_MQ.shape == (source.n_variants, -(-source.n_people // 4))
        code_MN = ((packed_MQ[:, :, None] >> np.array([0, 2, 4, 6])) & 3).reshape(len(packed_MQ), -1)
        np.testing.assert_array_equal(_COPIES[code_MN[:, : source.n_people]], expected)
        assert not code_MN[:, source.n_people :].any(), "the unused bits of the last byte must be 0"

    def test_any_cut_gives_the_same(self, source: GenotypeSource) -> None:
        m = source.n_variants
        cuts = [range(m + 1), [0, m // 3, m // 3, m], [0, 1, m], [0, 0, m - 1, m, m]]
        for read in _forms(source.rows):
            whole = read(0, m)
            for cut in cuts:
                blocks = [read(start, stop) for start, stop in itertools.pairwise(cut)]
                np.testing.assert_array_equal(np.concatenate(blocks), whole)
                assert all(block.dtype == whole.dtype for block in blocks)

    def test_people_in_any_order(self, source: GenotypeSource, expected: np.ndarray) -> None:
        rng = np.random.default_rng(0)
        order = rng.permutation(source.n_people)
        start, stop = source.n_variants // 4, source.n_variants
        for people in (order, order[: len(order) // 2], order[:1], order[:0]):
            if source.kind == "hard_calls":
                np.testing.assert_array_equal(source.counts(start, stop, people), expected[start:stop, people])
            dosages = source.dosages(start, stop)[:, people]
            np.testing.assert_array_equal(dosages, _with_nan(expected[start:stop, people]))

    def test_rows_that_are_not_there_are_refused(self, source: GenotypeSource) -> None:
        m = source.n_variants
        for read in _forms(source.rows):
            for start, stop in ((-1, 1), (0, m + 1), (m, m + 1), (2, 1), (m + 1, m + 1)):
                with pytest.raises(IndexError):
                    read(start, stop)

    def test_some_variants(self, source: GenotypeSource, tmp_path: Path) -> None:
        m = source.n_variants
        every, rng = np.arange(m), np.random.default_rng(1)
        for rows in (every[::2], np.sort(rng.permutation(m)[: m // 2 + 1]), every[m // 2 :], every, every[:0]):
            np.save(tmp_path / "rows.npy", rows)
            some = source.select(rows)
            assert some.n_variants == len(some.rows) == len(rows) and some.n_people == source.n_people
            assert some.variants["snp"].tolist() == source.variants["snp"].iloc[rows].tolist()
            for own in (some.rows, source.rows.select(tmp_path / "rows.npy"), SelectedRows(source.rows, rows)):
                for read, whole in zip(_forms(own), _forms(source.rows), strict=True):
                    half = len(rows) // 2
                    np.testing.assert_array_equal(read(0, half), whole(0, m)[rows[:half]])
                    np.testing.assert_array_equal(read(half, len(rows)), whole(0, m)[rows[half:]])
                    with pytest.raises(IndexError):
                        read(0, len(rows) + 1)

    def test_some_of_some_variants(self, source: GenotypeSource) -> None:
        twice = source.select(np.arange(1, source.n_variants)).select(np.arange(0, source.n_variants - 1, 2))
        rows = np.arange(1, source.n_variants, 2)
        assert twice.variants["snp"].tolist() == source.variants["snp"].iloc[rows].tolist()
        for read, whole in zip(_forms(twice.rows), _forms(source.rows), strict=True):
            np.testing.assert_array_equal(read(0, len(rows)), whole(0, source.n_variants)[rows])

    def test_blocks_belong_to_the_caller(self, source: GenotypeSource) -> None:
        for read in _forms(source.rows):
            first = read(0, source.n_variants)
            kept = first.copy()
            first[:] = 1
            np.testing.assert_array_equal(read(0, source.n_variants), kept)

    def test_threads_share_rows(self, source: GenotypeSource) -> None:
        m = source.n_variants
        starts = np.linspace(0, m, 9).astype(int).tolist() * 4
        for read in _forms(source.rows):
            whole = read(0, m)
            with ThreadPoolExecutor(4) as pool:
                blocks = list(pool.map(lambda start, read=read: read(start, m), starts))
            for start, block in zip(starts, blocks, strict=True):
                np.testing.assert_array_equal(block, whole[start:])

    def test_a_record_of_some_rows(self, source: GenotypeSource, tmp_path: Path) -> None:
        rows = np.arange(0, source.n_variants, 2)
        np.save(tmp_path / "rows.npy", rows)
        record = source.rows.select(tmp_path / "rows.npy").record()
        again = open_record(SourceRecord(**json.loads(json.dumps(asdict(record)))))
        assert len(again) == len(rows)
        for read, whole in zip(_forms(again), _forms(source.rows), strict=True):
            np.testing.assert_array_equal(read(0, len(rows)), whole(0, source.n_variants)[rows])
        with pytest.raises(ValueError, match="in memory"):
            source.rows.select(rows).record()

    def test_another_process_opens_it_again(self, source: GenotypeSource, tmp_path: Path) -> None:
        """By its record and by a pickle, in another folder: relative paths would not be found."""
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        (folder / "record.json").write_text(json.dumps(asdict(source.rows.record())), encoding="utf-8")
        (folder / "rows.pickle").write_bytes(pickle.dumps(source.rows))
        path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
        done = subprocess.run(
            [sys.executable, "-c", _OTHER_PROCESS],
            cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        whole = _forms(source.rows)[-1](0, source.n_variants)
        for name in ("record.npy", "pickle.npy"):
            np.testing.assert_array_equal(np.load(folder / name), whole)

    def test_packed_rows_and_dosages_agree(self, source: GenotypeSource) -> None:
        if source.kind == "hard_calls":
            counts = decode(source.packed(0, source.n_variants), np.arange(source.n_people))
            np.testing.assert_array_equal(source.dosages(0, source.n_variants), _with_nan(counts))


def _forms(rows: GenotypeRows) -> list[Callable[[int, int], np.ndarray]]:
    """How these rows can be read; the form that the files hold comes last."""
    return [rows.dosages, rows.packed] if rows.kind == "hard_calls" else [rows.dosages]


def _with_nan(counts: np.ndarray) -> np.ndarray:
    return np.where(counts < 0, np.nan, counts).astype(np.float32)
