"""The panel: BIG40 as shipped, user tables in their many spellings, hits by hand, and the level of chance."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hpc.errors import InputError
from hpc.stage import read_manifest
from udipdist.config import PanelConfig
from udipdist.genome import assemblies
from udipdist.loci import big40, panels
from udipdist.loci.panel import panel, preview
from udipdist.loci.proximity import rotation_shares

SOURCE = Path(__file__).parents[2] / "../shared/data/big40"


def write_loci(folder: Path, rows: list[tuple]) -> Path:
    """GenomicRiskLoci.txt of (chr, start, end)."""
    folder.mkdir(exist_ok=True)
    table = pd.DataFrame(rows, columns=["chr", "start", "end"])
    table.insert(0, "GenomicLocus", range(1, len(table) + 1))
    table.to_csv(folder / "GenomicRiskLoci.txt", sep="\t", index=False)
    return folder


def read_panel(name: str) -> pd.DataFrame:
    return panels.read(name, PanelConfig(loci=Path(), out=Path()), "GRCh37").table


def run(tmp_path: Path, loci: list[tuple], known: str, **keys) -> tuple[pd.DataFrame, dict]:
    path = tmp_path / "panel.txt"
    path.write_text(known)
    out = tmp_path / "out"
    panel(PanelConfig(loci=write_loci(tmp_path / "loci", loci), panel=str(path), out=out, overwrite=True, **keys))
    return pd.read_csv(out / "hits.tsv", sep="\t"), json.loads((out / "panel.json").read_text())


def test_big40_has_the_692_replicated_clusters():
    known = read_panel("big40")
    assert len(known) == 692 and (known.start <= known.end).all() and known.n.min() >= 1
    assert set(known.chrom) == set(range(1, 24))
    assert (known.end <= known.chrom.map(assemblies.LENGTHS)).all()
    assert known[known.lead == "rs2272737"].iloc[0].tolist() == [23, 152876080, 152908887, "rs2272737", 97]


@pytest.mark.skipif(not SOURCE.exists(), reason=f"the tables that big40 was derived from are not at {SOURCE}")
def test_big40_is_derived_from_its_sources():
    pd.testing.assert_frame_equal(big40.derive(SOURCE), big40.load(), check_dtype=False)


def test_hits_distances_and_recall_by_hand(tmp_path):
    loci = [(1, 1000, 2000), (1, 2250, 2300), (1, 2251, 2300), (2, 100, 100), ("X", 500, 900), (3, 5, 6)]
    known = "chr\tstart\tend\trsid\n1\t1500\t2150\trs1\n1\t9000\t9100\trs2\nX\t600\t700\trs3\n2\t300\t400\trs4\n"
    hits, summary = run(tmp_path, loci, known, flank_bp=100, rotations=50)
    assert list(hits)[:9] == ["locus", "chr", "start", "end", "lead", "hit", "nearest_panel", "distance", "panel"]
    assert list(hits)[9:] == ["panel_hit", "panel_nearest", "panel_distance"]
    assert list(hits.hit) == [1, 1, 0, 0, 1, 0]
    assert list(hits.distance[:5]) == [0, 100, 101, 200, 0] and np.isnan(hits.distance[5])
    assert list(hits.nearest_panel[:5]) == ["rs1", "rs1", "rs1", "rs4", "rs3"] and hits.nearest_panel.isna()[5]
    assert list(hits.chr) == ["1", "1", "1", "2", "X", "3"]
    assert summary["recall"] == 2 / 4 and summary["our_share"] == 3 / 6 and summary["novel"] == 3
    assert (summary["n_panel"], summary["n_loci"], summary["n_hits"]) == (4, 6, 3)
    assert summary["rotation_p"] == 1 / 51  # tiny intervals in a genome of 3e9: no rotation hits three
    assert read_manifest(tmp_path / "out")["facts"]["n_hits"] == 3


def test_no_loci_and_no_rotations(tmp_path):
    hits, summary = run(tmp_path, [], "chr pos\n1 5\n")
    assert hits.empty and summary["our_share"] is None and summary["rotation_share"] is None and summary["recall"] == 0
    _, summary = run(tmp_path, [(1, 1, 9)], "chr pos\n1 5\n", rotations=0)
    assert summary["our_share"] == 1 and summary["rotation_p"] is None


def intervals(rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["chrom", "start", "end"])


def test_chance_is_the_share_of_the_genome_that_is_covered():
    total = sum(assemblies.LENGTHS.values())
    rng = np.random.default_rng(0)
    places = [(c, p, p) for c in range(1, 23) for p in rng.integers(10**6, assemblies.LENGTHS[c] - 10**6, 30).tolist()]
    loci = [(c, p, p) for c in range(1, 23) for p in rng.integers(10**6, assemblies.LENGTHS[c] - 10**6, 10).tolist()]
    shares = rotation_shares(intervals(loci), intervals(places), 250_000, 2000, 1, assemblies.LENGTHS)
    covered = np.zeros(total // 1000 + 1, bool)
    offset = np.cumsum([0, *assemblies.LENGTHS.values()])
    for chrom, position, _ in places:
        middle = (offset[chrom - 1] + position) // 1000
        covered[middle - 250 : middle + 251] = True
    assert shares.mean() == pytest.approx(covered.mean(), rel=0.03)


def test_chance_against_rotating_the_panel_one_interval_at_a_time():
    rng = np.random.default_rng(5)
    length = assemblies.LENGTHS
    offset = dict(zip(length, np.cumsum([0, *length.values()])[:-1].tolist(), strict=True))
    total = sum(length.values())

    def draw(n: int) -> list[tuple]:
        starts = [(c, int(rng.integers(1, length[c] - 30_000_000))) for c in rng.integers(1, 24, n).tolist()]
        return [(c, s, s + int(rng.integers(0, 30_000_000))) for c, s in starts]

    loci, known = draw(6), draw(12)
    expected = []
    for shift in np.random.default_rng(3).integers(1, total, 60).tolist():
        hit = 0
        for chrom, start, end in loci:
            mine = (offset[chrom] + start, offset[chrom] + end)
            turned = []
            for c, s, e in known:
                first, last = max(s - 10**6, 1) + offset[c] - shift, min(e + 10**6, length[c]) + offset[c] - shift
                turned += [(first + k * total, last + k * total) for k in (-1, 0, 1)]
            hit += any(first <= mine[1] and last >= mine[0] for first, last in turned)
        expected.append(hit / len(loci))
    np.testing.assert_array_equal(
        rotation_shares(intervals(loci), intervals(known), 10**6, 60, 3, assemblies.LENGTHS), expected
    )
    assert 0 < np.mean(expected) < 1


def test_loci_on_the_panel_are_no_chance_and_random_ones_are(tmp_path):
    known = big40.load()
    on = [(c, s, e) for c, s, e in zip(known.chrom[:40], known.start[:40], known.end[:40], strict=True)]
    folder = write_loci(tmp_path / "on", on)
    panel(PanelConfig(loci=folder, out=tmp_path / "a"))
    summary = json.loads((tmp_path / "a" / "panel.json").read_text())
    assert summary["our_share"] == 1 and summary["rotation_p"] == 1 / 1001 and 0.1 < summary["rotation_share"] < 0.4
    rng = np.random.default_rng(2)
    off = [(c, p, p) for c in range(1, 23) for p in rng.integers(1, assemblies.LENGTHS[c], 4).tolist()]
    panel(PanelConfig(loci=write_loci(tmp_path / "off", off), out=tmp_path / "b"))
    assert json.loads((tmp_path / "b" / "panel.json").read_text())["rotation_p"] > 0.05
    assert "692" in preview(PanelConfig(loci=folder, out=tmp_path / "c"))[0]


@pytest.mark.parametrize(
    "text",
    [
        "chr\tstart\tend\n01\t5\t9\nchrX\t6\t7\n",
        "#CHROM,Chrom Start,chromEnd\n1,5,9\n23,6,7\n",
        "CHR  START  STOP\nchr1  5  9\nx  6  7\n",
        "Chromosome;start_bp;end_bp\nChr1;5;9\nX;6;7\n",
    ],
)
def test_tables_in_the_usual_spellings(tmp_path, text):
    path = tmp_path / "known.txt"
    path.write_text(text)
    assert read_panel(str(path))[["chrom", "start", "end"]].to_numpy().tolist() == [[1, 5, 9], [23, 6, 7]]


def test_positions_are_intervals_of_one_base(tmp_path):
    path = tmp_path / "known.txt"
    path.write_text("SNP CHR BP P\nrs9 7 12 0.5\n")
    assert read_panel(str(path)).iloc[0].tolist() == [7, 12, 12, "rs9"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("snp\tbp\nrs1\t5\n", r"lacks the columns chr, start and end \(or chr and pos\); its columns are snp, bp"),
        ("chr pos\n1 5\nbanana 6\nkiwi 7\n", r"line 3: chr='banana' is not a chromosome.*2 such rows"),
        ("chr pos\n1 5\n1 6e\n", r"line 3: pos='6e' is not a position"),
        ("chr start end\n1 9 5\n", r"line 2: end='5' is before the start"),
        ("chr start end\n", "has no rows"),
        ("chr\tpos\n1\t5\t9\n", "is not a text table with a header"),
        ("chr\tpos\n1\t5\n1\t5\t9\n", "is not a text table with a header"),
        ("", "is not a text table with a header"),
    ],
)
def test_bad_tables(tmp_path, text, message):
    path = tmp_path / "known.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_panel(str(path))


def test_missing_inputs(tmp_path):
    with pytest.raises(InputError, match=r"panel=big41: is not a file; give big40, a table"):
        read_panel("big41")
    with pytest.raises(InputError, match=r"GenomicRiskLoci\.txt: does not exist; give loci="):
        panel(PanelConfig(loci=tmp_path, out=tmp_path / "out"))


@pytest.mark.parametrize(
    ("label", "code"),
    [("1", 1), ("01", 1), ("chr1", 1), (1, 1), ("22", 22), ("X", 23), ("chrx", 23), ("23", 23), ("25", 23), ("Y", 24),
     ("MT", 26), ("0", 0), ("27", 0), ("chrUn_1", 0), ("", 0), ("1.0", 1), ("23.0", 23), ("chr07", 7)],
)  # fmt: skip
def test_chromosome_codes(label, code):
    assert assemblies.code(label) == code
    assert assemblies.codes([label, "3"]).tolist() == [code, 3]
