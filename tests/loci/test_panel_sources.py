"""Where panels and genes come from: BED, the GWAS Catalog, tables of genes; and genome builds that are not mixed up."""

import gzip
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc.errors import ConfigError, InputError
from hpc.stage import stage
from udipdist.config import LociConfig, PanelConfig
from udipdist.genome import assemblies
from udipdist.loci import big40, builds, catalog, genes, intervals, proximity
from udipdist.loci.panel import panel, preview
from udipdist.sumstats.store import create

HEADER = (
    "DATE ADDED TO CATALOG\tPUBMEDID\tDISEASE/TRAIT\tCHR_ID\tCHR_POS\tMAPPED_GENE\tSTRONGEST SNP-RISK ALLELE\tSNPS\t"
    "P-VALUE\tPVALUE_MLOG\tMAPPED_TRAIT"
)
KNOWN = big40.places().query("position_GRCh38 > 0")  # SNPs with a place in both builds


def association(trait, chroms, positions, snps, p, mapped="") -> str:
    return f"2024-01-01\t1\t{trait}\t{chroms}\t{positions}\tX\t{snps}-A\t{snps}\t{p}\t9\t{mapped}"


CATALOG = [
    association("Cortical thickness", 4, 102267552, "rs13107325", "2E-400", "brain measurement"),
    association('Height "adult"', 4, 102267552, "rs13107325", "1E-30", "body height"),
    association("Brain volume", "6;6", "31000000; 31000500", "rs1; rs2", "3E-9"),
    association("White matter x age", "1 x X", "1000000 x 2000000", "rs3 x rs4", "4E-8"),
    association("Brain volume", "", "", "rs5", "1E-12"),
    association("Brain volume", "", "", "chr7:12345", "1E-12"),
    association("Brain volume", "2", "3000000", "rs6", "6E-8"),
    association("Brain volume", "2", "", "rs7", "NR"),
    association("Brain volume", "5;5", "7;8;9", "rs8", "1E-20"),
]


@pytest.fixture
def catalog_file(tmp_path) -> Path:
    path = tmp_path / "gwas_catalog.tsv"
    path.write_text("\n".join([HEADER, *CATALOG]) + "\n")
    return path


def loci_folder(folder: Path, rows: list[tuple]) -> Path:
    """GenomicRiskLoci.txt of (chr, start, end, lead, its position)."""
    folder.mkdir(exist_ok=True)
    table = pd.DataFrame(rows, columns=["chr", "start", "end", "rsID", "pos"])
    table.insert(0, "GenomicLocus", range(1, len(table) + 1))
    table.to_csv(folder / "GenomicRiskLoci.txt", sep="\t", index=False)
    return folder


def run(tmp_path: Path, rows: list[tuple], **keys) -> tuple[pd.DataFrame, dict]:
    out = tmp_path / "out"
    keys = {"rotations": 20, **keys}
    panel(PanelConfig(loci=loci_folder(tmp_path / "loci", rows), out=out, overwrite=True, **keys))
    hits = pd.read_csv(out / "hits.tsv", sep="\t", keep_default_na=False, dtype=str)
    return hits, json.loads((out / "panel.json").read_text())


# ------------------------------------------------------------------------------------------------- tables, BED


def test_bed_counts_from_0(tmp_path):
    path = tmp_path / "a.bed.gz"
    path.write_bytes(gzip.compress(b"track name=a db=hg19\nchr1\t99\t200\tone\t5\nchrX\t7\t8\n"))
    assert intervals.of_file(path).to_numpy().tolist() == [[1, 100, 200, "one"], [23, 8, 8, "X:8"]]


def test_comments_above_a_table_are_skipped_and_lines_counted(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("## made by me\n# build hg19\nchr\tpos\n1\t5\nkiwi\t6\n")
    with pytest.raises(InputError, match="line 5: chr='kiwi'"):
        intervals.of_file(path)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.tsv", b"chr1\t5\t9\nchr1\t6\t9\n", r"has no header; write one .*NAME\.bed"),
        ("a.bed", b"\x6c\x1b\x01\x00", "is a PLINK .bed of genotypes"),
        ("a.bed", b"chr1\t5\t9\nchr2\t6\n", "line 2: has fewer than the columns"),
        ("a.bed", b"chr1\tfive\t9\n", "start='five' is not a position"),
        ("a.tsv.gz", b"chr\tpos\n1\t5\n", "is not a text table"),
    ],
)
def test_tables_that_are_refused(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError, match=message):
        intervals.of_file(path)


def test_a_zip_of_two_files_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.tsv", "chr\tpos\n1\t5\n")
        archive.writestr("b.tsv", "chr\tpos\n1\t5\n")
    with pytest.raises(InputError, match=r"holds 2 files \(a.tsv, b.tsv\)"):
        intervals.of_file(path)


# ----------------------------------------------------------------------------------------------- GWAS Catalog


def test_variants_of_the_catalog(catalog_file):
    table, counts = catalog.read(catalog_file, 5e-8, [])
    rows = {(row.chrom, row.start, row.lead): row.traits for row in table.itertuples()}
    assert rows == {
        (0, 0, "rs5"): ["Brain volume"],
        (0, 0, "rs8"): ["Brain volume"],  # places that do not pair up with chromosomes
        (1, 1000000, "rs3"): ["White matter x age"],
        (4, 102267552, "rs13107325"): ["Cortical thickness", 'Height "adult"'],
        (6, 31000000, "rs1"): ["Brain volume"],
        (6, 31000500, "rs2"): ["Brain volume"],
        (23, 2000000, "rs4"): ["White matter x age"],
    }
    assert (table.start == table.end).all()
    assert counts == {"associations": 9, "significant": 7, "unmapped": 2}


def test_words_are_looked_for_at_the_start_of_words(catalog_file):
    table, counts = catalog.read(catalog_file, 5e-8, ["CORT", "white matter"])
    assert set(table.lead) == {"rs13107325", "rs3", "rs4"} and counts["of_the_traits"] == 2
    assert table.traits[table.lead == "rs13107325"].iloc[0] == ["Cortical thickness"]
    assert set(catalog.read(catalog_file, 5e-8, ["brain meas"])[0].lead) == {"rs13107325"}  # MAPPED_TRAIT
    with pytest.raises(
        InputError, match=r"no trait of 7 associations .* begins with ortical; give other catalog_traits"
    ):
        catalog.read(catalog_file, 5e-8, ["ortical"])
    with pytest.raises(InputError, match="no association with P-VALUE <= 1e-20; give a larger"):
        catalog.read(Path(_only(catalog_file, "6E-8")), 1e-20, [])


def _only(path: Path, p: str) -> Path:
    lines = path.read_text().splitlines()
    few = path.with_name("few.tsv")
    few.write_text("\n".join([lines[0], *(line for line in lines[1:] if f"\t{p}\t" in line)]) + "\n")
    return few


def test_catalog_with_loci_of_its_build(tmp_path, catalog_file):
    packed = tmp_path / "cat.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(catalog_file, "gwas_catalog.tsv")
    rows = [
        (4, 102267000, 102268000, "rs13107325", 102267552),
        (9, 5, 6, "a", 5),
        (6, 30900000, 30990000, "b", 30950000),
    ]
    hits, summary = run(tmp_path, rows, panel=[str(packed)], assembly="GRCh38")
    assert list(hits.hit) == ["1", "0", "1"] and list(hits.cat_traits[[0, 2]]) == [
        'Cortical thickness | Height "adult"', "Brain volume",
    ]  # fmt: skip
    assert list(hits.distance) == ["0", "", "10000"] and summary["assembly"] == "GRCh38"
    assert summary["n_panel"] == 5 and summary["panels"][0]["unmapped"] == 2


def test_builds_are_not_mixed(tmp_path, catalog_file):
    rows = [(4, 103188000, 103189000, "rs13107325", 103188709)]
    with pytest.raises(InputError) as error:
        run(tmp_path, rows, panel=[str(catalog_file)])
    for part in (
        "is of GRCh38, the loci are of GRCh37",
        "variants=PREFIX",
        "chain=hg38ToHg19.over.chain.gz",
        "assembly=",
    ):
        assert part in str(error.value)
    with pytest.raises(InputError, match=r"panel=big40: is of GRCh37, the loci are of GRCh38.*hg19ToHg38"):
        run(tmp_path, [(1, 5, 6, "a", 5)], assembly="GRCh38")


def test_catalog_placed_by_rsid(tmp_path, catalog_file):
    (tmp_path / "g.bim").write_text(
        "4\trs13107325\t0\t103188709\tA\tG\n1\trs5\t0\t7000000\tA\tC\n1\trs99\t0\t8\tA\tC\n"
    )
    rows = [(4, 103188000, 103189000, "rs13107325", 103188709), (4, 102267000, 102268000, "z", 102267500)]
    hits, summary = run(tmp_path, rows, panel=["big40", str(catalog_file)], variants=tmp_path / "g.bim")
    assert list(hits.gwas_catalog_hit) == ["1", "0"] and list(hits.gwas_catalog_distance) == ["0", "920709"]
    one = summary["panels"][1]
    assert (one["by"], one["from"], one["lost"], one["n_panel"], one["recall"]) == ("rsID", "GRCh38", 5, 2, 0.5)
    assert summary["n_panel"] == 694 and [p["name"] for p in summary["panels"]] == ["big40", "gwas_catalog"]
    assert list(hits.panel) == ["big40", "big40"]  # as near, and named first
    (tmp_path / "g.bim").write_text("1\trs99\t0\t8\tA\tC\n")
    with pytest.raises(InputError, match="7 of 7 known loci have no rsID among variants=, so nothing is left"):
        run(tmp_path, rows, panel=[str(catalog_file)], variants=tmp_path / "g")
    with pytest.raises(InputError, match=r"no .*nothing\.bim; give the prefix"):
        run(tmp_path, rows, panel=[str(catalog_file)], variants=tmp_path / "nothing")


def test_catalog_placed_by_a_folder_of_gwas(tmp_path, catalog_file):
    variants = pd.DataFrame(
        {
            "chrom": ["1", "4", "4"],
            "position": [8, 103188709, 5],
            "snp": ["rs99", "rs13107325", "."],
            "a1": "A",
            "a2": "C",
        }
    )
    create(tmp_path / "gwas" / "sumstats.zarr", variants, ["t"], 2, {"df": None})
    rows = [(4, 103188000, 103189000, "rs13107325", 103188709)]
    hits, summary = run(tmp_path, rows, panel=[str(catalog_file)], variants=tmp_path / "gwas" / "sumstats.zarr")
    assert list(hits.nearest_panel) == ["rs13107325"] and (summary["n_panel"], summary["n_hits"]) == (1, 1)


def chain_file(path: Path, turned: bool = False) -> Path:
    """Chromosome 4 of GRCh38 to GRCh37, 921,157 bp further right, with a hole at 50,000,000..50,001,000."""
    sizes = [builds.LENGTHS[build][4] for build in (builds.BUILDS if turned else reversed(builds.BUILDS))]
    head = f"chain 1 chr4 {sizes[0]} + 1000 150000000 chr4 {sizes[1]} + 922157 150921157 1\n"
    path.write_bytes(gzip.compress(f"{head}49999000 1000 1000\n99999000\n\n".encode()))
    return path


def test_catalog_lifted_by_a_chain_file(tmp_path, catalog_file):
    pytest.importorskip("liftover", reason="the library liftover is not installed")
    rows = [(4, 103188000, 103189000, "rs13107325", 103188709)]
    keys = {"panel": [str(catalog_file)], "chain": chain_file(tmp_path / "c.chain.gz")}
    hits, summary = run(tmp_path, rows, flank_bp=0, **keys)
    assert list(hits.hit) == ["1"] and summary["n_panel"] == 1 and summary["panels"][0]["lost"] == 6
    with pytest.raises(InputError, match=r"goes from GRCh37 to GRCh38; give hg38ToHg19\.over\.chain\.gz"):
        run(tmp_path, rows, **keys | {"chain": chain_file(tmp_path / "t.chain.gz", turned=True)})
    (tmp_path / "x.chain").write_text("hello\n")
    with pytest.raises(InputError, match="does not join GRCh38 and GRCh37"):
        run(tmp_path, rows, **keys | {"chain": tmp_path / "x.chain"})


def test_intervals_are_lifted_by_their_ends(tmp_path):
    pytest.importorskip("liftover", reason="the library liftover is not installed")
    lift = builds.Lift.open(chain_file(tmp_path / "c.chain.gz"), "GRCh38", "GRCh37")
    table = pd.DataFrame(
        {"chrom": [4, 4, 4, 5], "start": [2000, 49_999_990, 50_000_500, 7], "end": [3000, 50_001_100] * 2}
    )
    assert lift.intervals(table)[["chrom", "start", "end"]].to_numpy().tolist() == [
        [4, 923157, 924157], [4, 50_921_147, 50_922_257],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"panel": []}, "names no panel"),
        ({"panel": ["big40", "big40"]}, "or one twice"),
        ({"catalog_traits": [" "]}, "a word is empty"),
        ({"variants": "a", "chain": "b"}, "give only one of them"),
    ],
)
def test_configurations_that_are_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        PanelConfig.parse({"loci": "a", "out": "b", **keys})


# ------------------------------------------------------------------------------------------------ genome builds


def known_table(path: Path, column: str, shift: int = 0, head: str = "") -> Path:
    """Known SNPs where one build has them."""
    rows = KNOWN.iloc[::50]
    text = "".join(f"{r.chrom}\t{getattr(r, column) + shift}\t{r.rsid}\n" for r in rows.itertuples())
    path.write_text(f"{head}chr\tpos\trsid\n{text}")
    return path


def test_a_table_of_the_other_build_is_found_out(tmp_path):
    rows = [(1, 5, 6, "a", 5)]
    for build in builds.BUILDS:
        path = str(known_table(tmp_path / "k.tsv", f"position_{build}"))
        assert run(tmp_path, rows, panel=[path], assembly=build)[1]["n_panel"] == len(KNOWN.iloc[::50])
        with pytest.raises(InputError, match=rf"so it is {build}: give panel_assembly={build}"):
            run(tmp_path, rows, panel=[path], assembly=builds.other(build))
    low = known_table(tmp_path / "low.tsv", "position_GRCh37", shift=-1)
    with pytest.raises(InputError, match="are one base too low, so its positions count from 0; add 1"):
        run(tmp_path, rows, panel=[str(low)])


def test_loci_of_the_other_build_are_found_out(tmp_path):
    rows = [(r.chrom, r.position_GRCh38, r.position_GRCh38, r.rsid, r.position_GRCh38) for r in KNOWN[:9].itertuples()]
    with pytest.raises(InputError, match=r"GenomicRiskLoci\.txt: 9 of 9 known SNPs .* so it is GRCh38: give assembly"):
        run(tmp_path, rows)


def test_positions_beyond_a_chromosome(tmp_path):
    path = tmp_path / "k.tsv"
    path.write_text("chr\tpos\n20\t64000000\n")  # GRCh37 has 63,025,520
    with pytest.raises(
        InputError, match="chromosome 20 has 63,025,520 .* GRCh37.*GRCh38 fits: give panel_assembly=GRCh38"
    ):
        run(tmp_path, [(1, 5, 6, "a", 5)], panel=[str(path)])
    path.write_text("chr\tpos\n20\t99000000\n")
    with pytest.raises(InputError, match="1 of 1 positions are beyond their chromosome in GRCh37 and GRCh38"):
        run(tmp_path, [(1, 5, 6, "a", 5)], panel=[str(path)])


def test_a_file_that_states_its_build(tmp_path):
    path = known_table(tmp_path / "k.tsv", "position_GRCh38", head="## genome build: GRCh38\n")
    with pytest.raises(InputError, match="is of GRCh38, the loci are of GRCh37"):
        run(tmp_path, [(1, 5, 6, "a", 5)], panel=[str(path)])
    with pytest.raises(InputError, match="says that it is GRCh38, panel_assembly=GRCh37; leave that out"):
        run(tmp_path, [(1, 5, 6, "a", 5)], panel=[str(path)], panel_assembly="GRCh37")


@pytest.mark.parametrize(
    ("line", "build"),
    [("track db=hg38", "GRCh38"), ("#!genome-build GRCh37.p13", "GRCh37"), ("## hg19", "GRCh37"), ("# b37", "GRCh37"),
     ("# hg19 lifted to hg38", None), ("# 38 loci", None), ("# chg38x", None)],
)  # fmt: skip
def test_stated_builds(line, build):
    assert builds.stated([line]) == build


def test_the_build_that_loci_was_told(tmp_path):
    folder = loci_folder(tmp_path / "loci", [(1, 5, 6, "a", 5)])
    config = LociConfig(sumstats="s", genotypes="geno", out=folder, assembly="GRCh38")
    table = (folder / "GenomicRiskLoci.txt").read_bytes()
    (folder / "GenomicRiskLoci.txt").unlink()
    folder.rmdir()
    with stage("loci", folder, config, {}):
        folder.mkdir()
        (folder / "GenomicRiskLoci.txt").write_bytes(table)
    with pytest.raises(InputError, match="the loci are of GRCh38; give variants=geno "):
        panel(PanelConfig(loci=folder, out=tmp_path / "out"))
    with pytest.raises(InputError, match="assembly=GRCh37: loci was given assembly=GRCh38"):
        panel(PanelConfig(loci=folder, out=tmp_path / "out2", assembly="GRCh37"))


# -------------------------------------------------------------------------------------------------------- genes

GTF = """##description: evidence-based annotation of the human genome (GRCh37), version 19 (Ensembl 74)
chr1\tHAVANA\tgene\t1000\t5000\t.\t+\t.\tgene_id "E1"; gene_type "protein_coding"; gene_name "AAA";
chr1\tHAVANA\ttranscript\t1000\t4000\t.\t+\t.\tgene_id "E1"; gene_type "protein_coding"; gene_name "AAA";
chr1\tHAVANA\tgene\t4500\t4600\t.\t-\t.\tgene_id "E2"; gene_type "protein_coding"; gene_name "BBB";
chr1\tHAVANA\tgene\t20000\t21000\t.\t-\t.\tgene_id "E3"; gene_type "lincRNA"; gene_name "LLL";
chrX\tHAVANA\tgene\t700\t900\t.\t-\t.\tgene_id "E4"; gene_biotype "protein_coding"; gene_name "XXX";
"""
LOCI = [(1, 4000, 9000, "a", 4550), (1, 18000, 19500, "b", 18000), (2, 5, 9, "c", 5), ("X", 1000, 1100, "d", 1050)]


def test_genes_of_a_gtf(tmp_path):
    path = tmp_path / "gencode.gtf.gz"
    path.write_bytes(gzip.compress(GTF.encode()))
    hits, summary = run(tmp_path, LOCI, genes=str(path), gene_window_bp=10_000)
    assert list(hits.nearest_gene) == ["BBB", "AAA", "", "XXX"]  # both hold the lead: the shorter one
    assert list(hits.distance_to_gene) == ["0", "13000", "", "150"]
    assert list(hits.genes) == ["AAA;BBB", "", "", "XXX"] and summary["genes"] == str(path)
    hits, _ = run(tmp_path, LOCI, genes=str(path), gene_types=[], gene_window_bp=500)
    assert list(hits.genes) == ["AAA;BBB", "LLL", "", "XXX"] and hits.nearest_gene[1] == "LLL"
    config = PanelConfig(loci=tmp_path / "loci", out=tmp_path / "o", genes=str(path))
    assert "the nearest of 3 genes" in preview(config)[1]


def test_genes_of_refgene_refflat_and_tables(tmp_path):
    rows = ["585\tNM_1\tchr1\t+\t999\t4000\t1\t2\t1\t1,\t2,\t0\tAAA\tcmpl\tcmpl\t0,",
            "585\tNM_2\tchr1\t+\t3000\t5000\t1\t2\t1\t1,\t2,\t0\tAAA\tcmpl\tcmpl\t0,",
            "585\tNM_2\tchr1\t+\t90000\t95000\t1\t2\t1\t1,\t2,\t0\tAAA\tcmpl\tcmpl\t0,",
            "585\tNR_3\tchr1\t+\t19999\t21000\t1\t2\t1\t1,\t2,\t0\tLLL\tcmpl\tcmpl\t0,"]  # fmt: skip
    expected = [[1, 1000, 5000, "AAA"], [1, 90001, 95000, "AAA"]]
    path = tmp_path / "refGene.txt.gz"
    path.write_bytes(gzip.compress("\n".join(rows).encode()))
    coding = ["protein_coding"]
    assert genes.read(str(path), "GRCh37", coding).table.to_numpy().tolist() == expected
    assert len(genes.read(str(path), "GRCh37", []).table) == 3
    flat = tmp_path / "refFlat.txt"
    flat.write_text("\n".join("\t".join([r.split("\t")[12], *r.split("\t")[1:11]]) for r in rows) + "\n")
    assert genes.read(str(flat), "GRCh37", coding).table.to_numpy().tolist() == expected
    plain = tmp_path / "genes.csv"
    plain.write_text("symbol,chrom,start,end\nAAA,1,1000,5000\n")
    assert genes.read(str(plain), "GRCh37", coding).table.to_numpy().tolist() == expected[:1]
    ucsc = tmp_path / "ucsc.gtf"
    ucsc.write_text('chr1\trefGene\ttranscript\t7\t9\t.\t+\t.\tgene_id "AAA"; transcript_id "NM_1"; gene_name "AAA";\n')
    assert genes.read(str(ucsc), "GRCh37", coding).table.to_numpy().tolist() == [[1, 7, 9, "AAA"]]


def test_genes_of_the_other_build(tmp_path):
    shipped = genes.read("ensembl", "GRCh38", [])
    assert len(shipped.table) > 19_000
    apoe = shipped.table[shipped.table.gene == "APOE"].iloc[0]
    assert apoe.tolist() == [19, 44905791, 44909393, "APOE"]
    with pytest.raises(InputError, match=r"the table that ships is GRCh38, the loci are GRCh37; give genes= the GTF"):
        genes.read("ensembl", "GRCh37", [])
    path = tmp_path / "genes.tsv"
    few = shipped.table[shipped.table.chrom < 10].iloc[::200]
    few = few[few.start.between(2e6, 1e8)]
    few.to_csv(path, sep="\t", index=False)
    assert len(genes.read(str(path), "GRCh38", []).table) == len(few)
    with pytest.raises(
        InputError, match="known genes start where GRCh38 has them, so it is GRCh38; the loci are GRCh37"
    ):
        genes.read(str(path), "GRCh37", [])
    (tmp_path / "g.gtf").write_text(GTF)
    with pytest.raises(InputError, match="says that it is GRCh37, the loci are GRCh38"):
        genes.read(str(tmp_path / "g.gtf"), "GRCh38", [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a b c\n", "lacks the columns chr, start and end"),
        (GTF.replace("gene_name", "Name").replace("gene_id", "ID"), "is it GFF3"),
        (GTF.replace("protein_coding", "lincRNA"), r"no gene of the types protein_coding; give gene_types=\[\]"),
    ],
)
def test_gene_tables_that_are_refused(tmp_path, text, message):
    path = tmp_path / "genes.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        genes.read(str(path), "GRCh37", ["protein_coding"])
    with pytest.raises(InputError, match=r"genes=none: is not a file; give a GENCODE"):
        genes.read("none", "GRCh37", [])


# ------------------------------------------------------------------------------------------------------ overlap

spans = st.lists(
    st.tuples(st.integers(1, 3), st.integers(1, 400), st.integers(0, 80), st.integers(0, 80)), min_size=1, max_size=12
)


def spans_table(rows: list[tuple]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["chrom", "start", "length", "at"])
    first = table.start + np.minimum(table["at"], table.length)
    return table.assign(end=table.start + table.length, first=first, last=first)


def apart(p, q) -> float:
    """Base pairs from an interval to another, by going through them."""
    if p.chrom != q.chrom:
        return np.inf
    return min(abs(a - b) for a in range(p.start, p.end + 1) for b in {min(max(a, q.start), q.end)})


@settings(max_examples=60, deadline=None)
@given(spans, spans, st.integers(0, 60))
def test_hits_against_going_through_base_pairs(ours, theirs, flank):
    ours, theirs = spans_table(ours), spans_table(theirs)
    between = np.array([[apart(p, q) for q in theirs.itertuples()] for p in ours.itertuples()], float)
    row, distance = proximity.nearest(ours, theirs)
    np.testing.assert_array_equal(distance, between.min(1))
    assert all(r == -1 or between[i, r] == distance[i] for i, r in enumerate(row))
    np.testing.assert_array_equal(proximity.touched(ours, theirs, flank), between.min(1) <= flank)
    np.testing.assert_array_equal(proximity.touched(theirs, ours, flank), between.min(0) <= flank)
    for found, row in zip(proximity.within(ours, theirs, flank), between, strict=True):
        assert sorted(found) == np.flatnonzero(row <= flank).tolist()


def test_p_values_of_random_loci_are_uniform():
    rng = np.random.default_rng(7)
    known = big40.load().assign(chrom=lambda t: assemblies.codes(t.chrom))
    total, offset = sum(assemblies.LENGTHS.values()), np.cumsum([0, *assemblies.LENGTHS.values()])
    p = []
    for i in range(150):
        place = rng.integers(1, total, 40)
        chrom = np.searchsorted(offset, place)
        at = np.minimum(place - offset[chrom - 1], [assemblies.LENGTHS[c] - 200_000 for c in chrom])
        loci = pd.DataFrame({"chrom": chrom, "start": at, "end": at + rng.integers(0, 200_000, 40)})
        share = proximity.touched(loci, known, 250_000).mean()
        by_chance = proximity.rotation_shares(loci, known, 250_000, 100, i, assemblies.LENGTHS)
        p.append((1 + (by_chance >= share - 1e-12).sum()) / 101)
    assert np.mean(np.array(p) <= 0.1) < 0.18 and 0.4 < np.mean(p) < 0.68  # ties make them somewhat too large
