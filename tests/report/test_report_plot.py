"""The verb `plot` and what it draws from: LD as numpy computes it, traits of loci, any summary statistics, messages."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hpc.errors import ConfigError, InputError, OutputExists
from hpc.stage import read_manifest
from udipdist.config import PlotConfig
from udipdist.report.analysis import Analysis, Linkage
from udipdist.report.collect import read_hits, read_loci, with_hits
from udipdist.report.plot import forms, plot, preview
from udipdist.sumstats import store as sumstats

CODES = {0: 0b11, 1: 0b10, 2: 0b00, -1: 0b01}  # copies of A1 (-1: not called) in a .bed


def write_bed(prefix: Path, variants: pd.DataFrame, calls_MN: np.ndarray) -> None:
    """PREFIX.bed, .bim and .fam."""
    n = calls_MN.shape[1]
    padded = np.zeros((len(calls_MN), -(-n // 4) * 4), np.uint8)
    padded[:, :n] = np.vectorize(CODES.get)(calls_MN)
    packed = padded[:, ::4] | padded[:, 1::4] << 2 | padded[:, 2::4] << 4 | padded[:, 3::4] << 6
    prefix.with_suffix(".bed").write_bytes(b"\x6c\x1b\x01" + packed.tobytes())
    lines = [f"{v.chrom}\t{v.snp}\t0\t{v.position}\t{v.a1}\t{v.a2}\n" for v in variants.itertuples()]
    prefix.with_suffix(".bim").write_text("".join(lines))
    prefix.with_suffix(".fam").write_text("".join(f"f{i} i{i} 0 0 0 -9\n" for i in range(n)))


@pytest.fixture
def table(tmp_path) -> tuple[Path, Path, np.ndarray, pd.DataFrame]:
    """A GWAS-SSF table of chromosome 7, a .bed of its variants but the third, alleles turned; calls; variants."""
    rng = np.random.default_rng(5)
    variants = pd.DataFrame(
        {"chrom": "7", "snp": [f"rs{i}" for i in range(40)], "position": 1_000_000 + 10_000 * np.arange(40), "a1": "A",
         "a2": "G"}
    )  # fmt: skip
    base = rng.integers(0, 3, 60)
    calls = np.array([np.where(rng.random(60) < i / 50, rng.integers(0, 3, 60), base) for i in range(40)])
    calls[rng.random(calls.shape) < 0.05] = -1
    log10p = np.round(10.0 - 0.2 * np.arange(40), 6)
    out = tmp_path / "mine.tsv"
    pd.DataFrame(
        {
            "chromosome": "7", "base_pair_location": variants["position"], "effect_allele": "A", "other_allele": "G",
            "neg_log_10_p_value": log10p, "rsid": variants["snp"],
        }
    ).to_csv(out, sep="\t", index=False)  # fmt: skip
    turned = variants.assign(a1="G", a2="A")
    kept = np.arange(40) != 2
    write_bed(tmp_path / "geno", turned[kept], calls[kept])
    return out, tmp_path / "geno", calls, variants


def keys(**more) -> PlotConfig:
    return PlotConfig.parse({key: str(value) if isinstance(value, Path) else value for key, value in more.items()})


def test_linkage_of_a_region_is_that_of_numpy_and_unknown_where_the_reference_lacks_a_variant(table):
    path, prefix, calls, _ = table
    analysis = Analysis.open(path, "minp")
    region = analysis.stretch(7, 1_000_000, 1_250_000, 7.3, Linkage(prefix), None)
    assert len(region.variants) == 26 and region.variants.loc[region.lead, "snp"] == "rs0"
    r2 = region.variants["r2"].to_numpy()
    assert r2[0] == 1.0 and np.isnan(r2[2]) and np.isfinite(np.delete(r2, 2)).all()
    for i in (1, 3, 10, 25):
        both = (calls[0] >= 0) & (calls[i] >= 0)
        np.testing.assert_allclose(r2[i], np.corrcoef(calls[0][both], calls[i][both])[0, 1] ** 2, rtol=1e-12)
    absent = analysis.stretch(7, 1_015_000, 1_100_000, 7.3, Linkage(prefix), None)  # whose strongest is rs2
    assert absent.variants["r2"].isna().all()


def test_a_figure_of_a_table_in_every_form(table, tmp_path):
    path, prefix, _, _ = table
    genes = tmp_path / "genes.tsv"
    genes.write_text("chr\tstart\tend\tgene\n7\t1010000\t1020000\tABC1\n8\t1\t2\tELSEWHERE\n")
    config = keys(
        kind="regional", sumstats=path, region="chr7:1,000,000-1,300,000", genotypes=prefix, genes=str(genes),
        out=tmp_path / "r.png", also=["pdf", "svg", "html"], width_mm=120, dpi=100,
    )  # fmt: skip
    assert "reads genotypes: geno.bed" in "\n".join(preview(config)) and not (tmp_path / "r.png").exists()
    plot(config)
    assert Image.open(tmp_path / "r.png").width == round(120 / 25.4 * 100)
    assert (tmp_path / "r.pdf").read_bytes()[:5] == b"%PDF-"
    assert (tmp_path / "r.svg").read_text().startswith("<?xml")
    page = (tmp_path / "r.html").read_text()
    assert "rs0" in page and "ABC1" in page and "ELSEWHERE" not in page and "<script" not in page
    assert re.search(r"r\u00b2 0\.\d\d to the lead", page)
    assert read_manifest(tmp_path / "r.png")["facts"]["files"] == ["r.png", "r.pdf", "r.svg", "r.html"]
    with pytest.raises(OutputExists):
        plot(config)
    first = (tmp_path / "r.svg").read_bytes()
    plot(config.model_copy(update={"overwrite": True}))
    assert (tmp_path / "r.svg").read_bytes() == first


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"kind": "manhattan", "loci": "loci", "panel": "panel"}, "chr1:3,010,000"),
        ({"kind": "miami", "loci": "loci", "below_trait": "multivariate", "below_loci": "loci_multivariate"}, "chr2:3"),
        ({"kind": "miami", "below": "comparison/without_covariates/gwas"}, "Upwards minp"),
        ({"kind": "qq", "trait": "z002"}, "QQ curve of z002"),
        ({"kind": "qq"}, "of each trait"),
        ({"kind": "regional", "loci": "loci", "panel": "panel", "locus": 1}, "chromosome 1: 101 variants of minp"),
        ({"kind": "heatmap", "loci": "loci", "cap": 9}, "each of 5 traits in each of 2 loci, as -log10 p, capped at 9"),
    ],
)  # fmt: skip
def test_every_kind_from_folders(whole_run, tmp_path, more, said):
    paths = {k: str(whole_run / v) for k, v in more.items() if k in ("loci", "panel", "below", "below_loci")}
    plot(keys(**(more | paths), sumstats=whole_run / "gwas", out=tmp_path / "x.html"))
    page = (tmp_path / "x.html").read_text()
    assert said in page and "<script>" not in page


def test_strengths_are_the_smallest_p_of_each_trait_in_the_locus(whole_run):
    analysis = Analysis.open(whole_run / "gwas", "minp")
    loci = read_loci(whole_run / "loci")
    opened = sumstats.Sumstats.open(whole_run / "gwas")
    found = analysis.strengths(loci, 7.3)
    for trait, name in enumerate(opened.traits):
        values = opened.log10p(name)[296:306]  # 2,970,000 to 3,060,000 of chromosome 1
        np.testing.assert_allclose(found.log10p_LP[0, trait], np.nanmax(values))


def test_loci_of_fuma_itself_and_genes_of_the_panel(tmp_path):
    columns = "GenomicLocus\tuniqID\trsID\tchr\tpos\tp\tstart\tend\n"
    (tmp_path / "GenomicRiskLoci.txt").write_text(columns + "1\t23:5:A:C\trs1\t23\t5\t1.5e-400\t4\t6\n")
    loci = read_loci(tmp_path)
    assert loci["code"].tolist() == [23] and abs(loci["log10p"][0] - 399.8239) < 1e-3
    (tmp_path / "hits.tsv").write_text(
        "locus\thit\tnearest_panel\tdistance\tnearest_gene\tdistance_to_gene\n1\t1\trs9\t0\tAPOE\t120\n"
    )
    both = with_hits(loci, read_hits(tmp_path))
    assert both["nearest_gene"].tolist() == ["APOE"] and both["distance_to_gene"].tolist() == [120]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"kind": "heatmap"}, "needs loci="),
        ({"kind": "regional"}, "needs locus= and loci=, or region"),
        ({"kind": "regional", "locus": 1}, "needs locus= and loci=, or region"),
        ({"kind": "miami"}, "would draw the same twice"),
        ({"kind": "qq", "cap": 3}, "cap: is a key of kind=heatmap"),
        ({"kind": "manhattan", "panel": "p"}, "panel: needs loci="),
        ({"kind": "pie"}, "kind"),
    ],
)
def test_keys_that_do_not_fit_are_refused(more, message):
    with pytest.raises(ConfigError, match=message):
        keys(**more, sumstats="s", out="x.png")


def test_what_cannot_be_drawn_is_refused(table, whole_run, tmp_path):
    path, _, _, _ = table
    out = tmp_path / "x.png"

    def refused(error: type[Exception], message: str, **more) -> None:
        with pytest.raises(error, match=message):
            plot(keys(**({"sumstats": path, "out": out} | more)))
        assert not out.exists()

    with pytest.raises(ConfigError, match=r"must end in one of .png, .pdf, .svg, .html"):
        forms(keys(kind="qq", sumstats=path, out=tmp_path / "x.gif"))
    refused(InputError, "sumstats=.*does not exist", kind="qq", sumstats=tmp_path / "none")
    refused(InputError, "panel=.*does not exist", kind="manhattan", loci=whole_run / "loci", panel=tmp_path / "none")
    refused(ConfigError, "region=7: is not of the form", kind="regional", region="7")
    refused(ConfigError, "region=7:9-3: ends before", kind="regional", region="7:9-3")
    refused(InputError, "no variant with a p there", kind="regional", region="7:1-5")
    refused(InputError, "locus=9: .* has the loci 1, 2", kind="regional", loci=whole_run / "loci", locus=9)
    refused(InputError, "has no p at the lead SNP", kind="regional", loci=whole_run / "loci", locus=1)
    refused(InputError, "has one trait", kind="heatmap", loci=whole_run / "loci")
    refused(InputError, "the smallest of 5 p-values", kind="qq", sumstats=whole_run / "gwas", trait="minp")
    (tmp_path / "hits.tsv").write_text("locus\thit\tnearest_panel\tdistance\n7\t1\trs9\t0\n")
    refused(InputError, "give the panel of these loci", kind="manhattan", loci=whole_run / "loci", panel=tmp_path)
