"""The benchmark of export measures files that hold what they should, and ends in one line of JSON."""

import json
import sys

import pandas as pd

from benchmarks import export


def test_it_measures_whole_files(tmp_path):
    export.make(tmp_path / "sumstats.zarr", 300, 2)
    rows = export.measure(tmp_path, 300, 2, 1)
    assert all(row["seconds"] > 0 and row["mb"] > 0 for row in rows.values())
    ours, peer = (pd.read_csv(tmp_path / name, sep="\t") for name in ("a.fastGWA", "pandas.tsv"))
    pd.testing.assert_frame_equal(ours, peer.set_axis(ours.columns, axis=1), rtol=1e-6)


def test_the_last_line_is_json(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["export", "--quick", "--variants", "2000", "--traits", "2"])
    export.main()
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"rows_per_s", "mb_per_s", "to_pandas"} <= set(summary)
