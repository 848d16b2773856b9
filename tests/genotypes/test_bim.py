"""The table of variants: read in either way, refused where broken, and what is unusual is counted."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc.errors import InputError
from udipdist.genotypes import bim

LINES = ["1\trs1\t0\t100\tA\tC", "1\trs2\t0.5\t200\tG\tGTT", "chrX\t.\t-9\t300\t0\tT", "X\trs4\t0\t2147483647\t0\t0"]


def write(tmp_path, lines, end="\n") -> str:
    (tmp_path / "c.bim").write_text("".join(line + end for line in lines), newline="")
    return str(tmp_path / "c")


@pytest.mark.parametrize("mark", ["\t", " ", "  ", " \t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_any_white_space(tmp_path, mark, end):
    table = bim.read_bim(write(tmp_path, [line.replace("\t", mark) for line in LINES], end))
    assert list(table.columns) == ["chrom", "snp", "position", "a1", "a2"]
    assert table.chrom.tolist() == ["1", "1", "chrX", "X"] and table.chrom.dtype == "category"
    assert table.snp.tolist() == ["rs1", "rs2", ".", "rs4"]
    assert table.position.tolist() == [100, 200, 300, 2147483647] and table.position.dtype == np.int64
    assert table.a1.tolist() == ["A", "G", "0", "0"] and table.a2.tolist() == ["C", "GTT", "T", "0"]


def test_one_odd_line_far_down_changes_nothing(tmp_path):
    lines = [f"1\trs{i}\t0\t{i}\tA\tC" for i in range(3000)]
    expected = bim.read_bim(write(tmp_path, lines))
    lines[2500] = lines[2500].replace("\t", "  ")
    lines[2600] = lines[2600] + "\t"
    pd.testing.assert_frame_equal(bim.read_bim(write(tmp_path, lines)), expected)


@pytest.mark.parametrize(
    ("number", "line", "message"),
    [
        (2, "1\trs2\t0\t2e2x\tG\tT", "line 2: '2e2x' is not a position"),
        (2, "1\trs2\t0\t200.5\tG\tT", "line 2: '200.5' is not a position"),
        (2, "1\trs2\t0\t-200\tG\tT", "line 2: '-200' is not a position"),
        (2, "1\trs2\t0\t2147483648\tG\tT", "line 2: '2147483648' is not a position"),
        (2, "1\trs2\t0\t200\tG\tG", "line 2: A1 and A2 of rs2 are both 'G'; a variant has two alleles"),
        (2, "1\trs2\t200\tG\tT", "line 2: has 5 columns, not 6"),
        (2, "1\trs2\t0\t200\tG\tT\tx", "line 2: has 7 columns, not 6"),
        (2, "1 \trs2\t0\t200\tG", "line 2: has 5 columns, not 6"),
        (2500, "1\trs2\t0\tx\tG\tT", "line 2500: 'x' is not a position"),
        (2500, "1\trs2\t0\t200\tG\tG", "line 2500: A1 and A2"),
        (2500, "1\trs2\t0\t200\tG", "line 2500: has fewer than 6 columns"),
        (2500, "1\trs 2\t0\t200\tG\tT", "2500"),
    ],
)
def test_broken_lines_are_named(tmp_path, number, line, message):
    lines = [f"1\trs{i}\t0\t{i}\tA\tC" for i in range(3000)]
    lines[number - 1] = line
    with pytest.raises(InputError, match=message):
        bim.read_bim(write(tmp_path, lines))


def test_several_lines_with_equal_alleles_are_counted(tmp_path):
    with pytest.raises(InputError, match=r"c.bim, line 1: A1 and A2 of rs1 are both 'AT' \(and 2 other lines\)"):
        bim.read_bim(write(tmp_path, ["1\trs1\t0\t1\tAT\tAT"] * 3 + LINES))


def frame(rows) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["chrom", "snp", "position", "a1", "a2"])
    return table.assign(chrom=table.chrom.astype("category"))


USUAL = [("1", "a", 5, "A", "C"), ("1", "b", 6, "A", "C"), ("2", "c", 1, "A", "C"), ("GL1", "d", 1, "A", "C")]


@pytest.mark.parametrize(
    ("rows", "expected", "said"),
    [
        (USUAL, {}, None),
        ([], {}, None),
        ([("1", "a", 9, "A", "C"), *USUAL], {"out_of_order": 1, "same_id": 1}, r"first a, 1:5 after 9"),
        ([USUAL[2], USUAL[0], *USUAL[3:], USUAL[1]], {"split_chromosomes": 1}, "1 chromosomes are in several pieces"),
        (
            [("chr1", "a", 5, "A", "C"), ("01", "b", 5, "C", "A")],
            {"same_position": 1, "same_alleles": 1},
            "1 repeat pos",
        ),
        ([("1", "a", 5, "A", "C"), ("1", "b", 5, "A", "CT")], {"same_position": 1}, None),
        ([("1", "a", 5, "A", "C")] * 3, {"same_position": 2, "same_alleles": 2, "same_id": 2}, "2 repeat the id"),
        ([("1", ".", 5, "A", "C"), ("1", ".", 6, "A", "C")], {"no_id": 2}, r"2 have no id"),
        ([("GL1", "a", 5, "A", "C"), ("GL2", "b", 5, "A", "C")], {}, None),
    ],
)
def test_what_is_unusual_is_counted_and_told_once(rows, expected, said, caplog):
    zero = dict.fromkeys(("out_of_order", "split_chromosomes", "same_position", "same_alleles", "same_id", "no_id"), 0)
    assert bim.look_over(frame(rows), "here") == zero | expected
    assert len(caplog.records) == (said is not None)
    if said is not None:
        assert caplog.text.count("here: of ") == 1
        caplog.clear()
    variants = frame(rows)
    shuffled = variants.sample(frac=1, random_state=3, ignore_index=True)
    keys = ("same_position", "same_alleles", "same_id", "no_id")
    again = bim.look_over(shuffled, "here")
    assert {key: again[key] for key in keys} == {key: (zero | expected)[key] for key in keys}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(alphabet="ab.:", max_size=4), max_size=30))
def test_repeated_ids_are_counted_right(ids):
    found = bim.look_over(frame([("1", name, i, "A", "C") for i, name in enumerate(ids)]), "here")
    named = [name for name in ids if name != "."]
    assert found["same_id"] == len(named) - len(set(named)) and found["no_id"] == len(ids) - len(named)


def test_a_large_table_takes_little_memory(tmp_path):
    """300,000 lines; ten million are read in 3 s and take 0.5 GB (1.1 GB while they are read)."""
    m = 300_000
    lines = [f"{1 + i // 20_000}\trs{1_000_000 + 7 * i}\t0\t{i % 20_000 * 300}\tA\t{'CG'[i % 2]}\n" for i in range(m)]
    (tmp_path / "c.bim").write_text("".join(lines))
    bim.read_bim(str(tmp_path / "c"))
    tracemalloc.start()
    table = bim.read_bim(str(tmp_path / "c"))
    assert tracemalloc.get_traced_memory()[1] < 20e6  # no Python object a line (Arrow's own memory is not traced)
    tracemalloc.stop()
    assert table.memory_usage(deep=True).sum() < 60 * m
    assert not any(bim.look_over(table, "here").values())
