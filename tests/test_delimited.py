"""Text tables: every way of writing one reads alike, and a row that does not fit is named."""

from __future__ import annotations

import bz2
import gzip
import lzma

import pyarrow as pa
import pytest

from hpc.errors import InputError
from udipdist import delimited

NAMES = ["FID", "IID", "site", "x"]
ROWS = [["01", "1", "New York", "1.5"], ["b", "002", "Oslo", "-3e-7"], ["c", "3", "", "2"]]


def written(separator: str, quote: bool = False, **keys) -> str:
    """The table as text; `rown` names the rows as R does, `end` ends each line."""
    rows = [NAMES, *ROWS]
    cells = [[f'"{cell}"' if quote else cell for cell in row] for row in rows]
    if keys.get("rown"):
        cells = [cells[0], *([f'"{i}"', *row] for i, row in enumerate(cells[1:], start=1))]
    return "".join(separator.join(row) + keys.get("end", "") + keys.get("newline", "\n") for row in cells)


def read(path, data: str | bytes):
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    table = delimited.read(path)
    return table.form.names, [list(row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize(
    "keys",
    [
        {}, {"quote": True}, {"newline": "\r\n"}, {"newline": "\r"}, {"end": "SEP"}, {"quote": True, "end": "SEP"},
    ],
)  # fmt: skip
def test_every_separator_and_end_of_line(tmp_path, separator, keys):
    keys = {key: separator if value == "SEP" else value for key, value in keys.items()}
    assert read(tmp_path / "t", written(separator, **keys)) == (NAMES, ROWS)


@pytest.mark.parametrize("separator", [" ", "   ", " \t ", "\t"])
def test_quoted_cells_between_blanks(tmp_path, separator):
    text = "\n".join(line + "  " for line in written(separator, quote=True).splitlines())
    assert read(tmp_path / "t", text) == (NAMES, ROWS)


@pytest.mark.parametrize(
    "text",
    [
        "a b c\n1\t2\t3\n4\t5\t6\n",
        "a\tb\tc\n1 2 3\n4 5 6\n",
        "a\tb \t c\n1 2\t3\n4\t5  6\n",
        "a b c \n1 2 3 \n4 5 6 \n",
        "a b c\n\n1 2 3\n   \n4 5 6",
        "## made by\na,b,c\n1,2,3\n4,5,6\n",
        "sep=;\na;b;c\n1;2;3\n4;5;6\n",
        "a;b;c;\n1;2;3\n4;5;6\n",
        "a;b;c\n1;2;3;\n4;5;6;\n",
    ],
)
def test_header_and_rows_separated_in_different_ways(tmp_path, text):
    assert read(tmp_path / "t", text) == (["a", "b", "c"], [["1", "2", "3"], ["4", "5", "6"]])


@pytest.mark.parametrize("separator", ["\t", ",", " "])
def test_row_names_of_r_are_a_column_without_a_name(tmp_path, separator):
    names, rows = read(tmp_path / "t", written(separator, quote=True, rown=True))
    assert names == ["", *NAMES] and rows == [[str(i), *row] for i, row in enumerate(ROWS, start=1)]
    assert read(tmp_path / "t", '"",a,b\n"1",2,3\n') == (["", "a", "b"], [["1", "2", "3"]])


def test_packed_files_are_known_by_their_bytes_whatever_their_name(tmp_path):
    text = written("\t").encode()
    packed = [
        text,
        gzip.compress(text),
        bz2.compress(text),
        lzma.compress(text),
        pa.compress(text, "zstd", asbytes=True),
    ]
    for data in packed:
        for name in ("t.txt", "t.gz", "t.bz2"):
            assert read(tmp_path / name, data) == (NAMES, ROWS)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings(tmp_path, encoding, caplog):
    assert read(tmp_path / "t", "a,b\n1,Zürich\n".encode(encoding)) == (["a", "b"], [["1", "Zürich"]])
    assert ("is not UTF-8 (line 2)" in caplog.text) is (encoding == "cp1252")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a\tb\tc\n1\t2\n", "line 2: is not a table row with 3 columns but 2 cells"),
        ("a,b,c\n1,2,3\n1,2,3\n1,2\n", "line 4: is not a table row with 3 columns but 2 cells"),
        ("a b c\n1 2 3\n1 2 3 4\n", "line 3: is not a table row with 3 columns but 4 cells"),
        ('a,b\n1,2\n"1,2\n', "line 3: has a quote that does not end"),
        ("", "is empty"),
        ("\n\n", "is empty"),
        (b"PK\x03\x04abc", "is a zip archive or an Excel workbook"),
        (bytes(range(128, 256)), "is not a text table"),
        (b"a\0b", "is not a text table"),
        (b"\xff\xfe\x00", "is not a text table"),
        (gzip.compress(b"a b\n" + b"1 2\n" * 99, mtime=0)[:-20], "is not a text table, or cut off"),
        (bz2.compress(b"a b\n" + b"1 2\n" * 99)[:-20], "is not a text table, or cut off"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, data, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path / "t", data)


def test_numbers_are_rounded_correctly():
    column = pa.chunked_array([["2.0143", "+1", "1e-320", "x", None, " ", "1_0", "NaN", "inf"]])
    assert str(delimited.numbers(column).tolist()) == "[2.0143, 1.0, 1e-320, nan, nan, nan, nan, nan, inf]"
    assert delimited.numbers(pa.chunked_array([["0.1", None]])).tolist()[0] == 0.1
