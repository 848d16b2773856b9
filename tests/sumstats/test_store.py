"""Summary statistics on disk: what is written comes back, part by part, and p is exact to any depth."""

import itertools
import warnings
from dataclasses import fields, replace
from pathlib import Path

import mpmath
import numpy as np
import pandas as pd
import pytest
import xarray

from hpc.errors import InputError
from hpc.files import publish_json, sha256
from udipdist.sumstats.pvalues import log10p_from_t, log10p_from_z, p_text
from udipdist.sumstats.store import Sumstats, SumstatsBlock, create, write

M, P, ROWS = 25, 3, 10
TRAITS = ["z000", "z001", "height"]


def variants(m: int = M) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "chrom": ["1"] * (m - 5) + ["X"] * 5,
            "position": np.arange(m) * 1000 + 7,
            "snp": [f"rs{i}" for i in range(m)],
            "a1": ["A"] * m,
            "a2": ["GTTT"] * m,
        }
    )


def block(start: int, stop: int, p: int = P) -> SumstatsBlock:
    rng = np.random.default_rng(start)
    m = stop - start
    se = rng.uniform(0.1, 1, (m, p)).astype(np.float32)
    beta = rng.normal(size=(m, p)).astype(np.float32)
    beta[0] = se[0] = np.nan
    log10p = log10p_from_z(beta.astype(float) / se)
    return SumstatsBlock(
        beta, se, np.full(m, 90), rng.uniform(size=m), np.r_[np.nan, log10p[1:].max(1)],
        np.r_[-1, log10p[1:].argmax(1)], rng.uniform(size=m), rng.exponential(size=m),
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "sumstats.zarr"
    create(path, variants(), TRAITS, ROWS, {"test": "mixed", "df": None})
    for start in range(0, M, ROWS):
        write(path, start, block(start, min(start + ROWS, M)))
    return path


def test_everything_written_comes_back(store):
    read = Sumstats.open(store)
    pd.testing.assert_frame_equal(
        read.variants[["chrom", "position", "snp", "a1", "a2"]], variants(), check_dtype=False, check_column_type=False
    )
    assert read.traits == TRAITS and read.attrs["test"] == "mixed"
    assert list(read.blocks()) == [(0, 10), (10, 20), (20, 25)]
    for start, stop in read.blocks():
        expected = block(start, stop)
        np.testing.assert_array_equal(read.beta("z001", start, stop), expected.beta_MP[:, 1])
        np.testing.assert_array_equal(read.se("height")[start:stop], expected.se_MP[:, 2])
        np.testing.assert_array_equal(read.minp_trait(start, stop), expected.minp_trait_M)
        np.testing.assert_array_equal(read.hwe_log10p(start, stop), expected.hwe_log10p_M.astype(np.float32))
        np.testing.assert_allclose(read.log10p("minp", start, stop), expected.minp_log10p_M, rtol=1e-7)
        np.testing.assert_allclose(read.log10p("multivariate")[start:stop], expected.multivariate_log10p_M, rtol=1e-7)
        whole = read.block(start, stop)
        for field in fields(SumstatsBlock):
            found, wanted = getattr(whole, field.name), getattr(expected, field.name)
            np.testing.assert_array_equal(found, np.asarray(wanted, found.dtype), err_msg=field.name)
    largest = np.max([read.log10p(trait, 1, 10) for trait in TRAITS], axis=0)
    np.testing.assert_allclose(largest, read.log10p("minp", 1, 10), rtol=1e-6)
    assert read.variants.n.eq(90).all()


def test_without_a_test_of_equilibrium_its_column_is_empty(store):
    write(store, 0, replace(block(0, 10), hwe_log10p_M=None))
    read = Sumstats.open(store)
    assert np.isnan(read.hwe_log10p(0, 10)).all() and np.isfinite(read.hwe_log10p(10)).all()
    np.testing.assert_array_equal(read.beta("z001", 0, 10), block(0, 10).beta_MP[:, 1])


def test_xarray_opens_it_without_a_warning(store):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xarray.open_zarr(store, consolidated=False) as data:
            assert dict(data.sizes) == {"variant": M, "trait": P}
            assert data["beta"].sel(trait="z001").values[3] == block(0, 10).beta_MP[3, 1]
            assert data["chrom"].values[-1] == "X"


def test_a_part_is_whole_files_and_the_same_bytes_again(store):
    def files() -> dict[str, str]:
        return {str(p.relative_to(store)): sha256(p) for p in store.rglob("*") if p.is_file()}

    before = files()
    write(store, 10, block(10, 20))
    assert files() == before
    write(store, 10, block(0, 10))
    changed = {name for name, digest in files().items() if before[name] != digest}
    assert changed and all("/c/1" in name for name in changed)


@pytest.mark.parametrize(("start", "stop"), [(5, 15), (0, 5), (20, 30)])
def test_a_part_of_a_shard_is_refused(store, start, stop):
    with pytest.raises(AssertionError, match="whole shards"):
        write(store, start, block(start, stop))


def test_one_of_many_traits_is_a_chunk_of_its_own(tmp_path):
    path = tmp_path / "many.zarr"
    create(path, variants(), [f"t{i}" for i in range(40)], ROWS, {"df": 100})
    write(path, 0, block(0, 10, 40))
    read = Sumstats.open(path)
    np.testing.assert_array_equal(read.beta("t39", 0, 10), block(0, 10, 40).beta_MP[:, 39])
    assert (read.rows_per_shard, read.traits_per_chunk) == (ROWS, 16)
    expected = log10p_from_t(read.beta("t39", 1, 10).astype(float) / read.se("t39", 1, 10), 100)
    np.testing.assert_array_equal(read.log10p("t39", 1, 10), expected)


def test_degrees_of_freedom_may_differ_between_traits(tmp_path):
    path = tmp_path / "df.zarr"
    create(path, variants(), TRAITS, ROWS, {"df": [10, 20, 30]})
    write(path, 0, block(0, 10))
    read = Sumstats.open(path)
    z = read.beta("z001", 1, 10).astype(float) / read.se("z001", 1, 10)
    np.testing.assert_array_equal(read.log10p("z001", 1, 10), log10p_from_t(z, 20))


def relative_error(value: float, exact: mpmath.mpf) -> float:
    return abs(float((mpmath.mpf(float(value)) - exact) / exact))


@pytest.mark.parametrize("z", [1e-8, 0.3, 0.999, 1.0, 1.001, 5, 37, 39, 60, 1e4])
def test_normal_p_is_exact(z):
    with mpmath.workdps(50):
        exact = -mpmath.log10(mpmath.erfc(mpmath.mpf(z) / mpmath.sqrt(2)))
        assert relative_error(log10p_from_z(-z), exact) < 1e-12


@pytest.mark.parametrize("df", [1, 2, 7, 333, 3974, 22_000, 500_000])
@pytest.mark.parametrize("t", [1e-8, 0.01, 0.7, 3.0, 30.0, 37.0, 39.0, 60.0, 150.0, 1e10])
def test_t_p_is_exact(t, df):
    with mpmath.workdps(50):
        x = mpmath.mpf(df) / (df + mpmath.mpf(t) ** 2)
        if t > 3:  # the series in x of A&S 26.5.4, summed as it stands
            a, b = mpmath.mpf(df) / 2, mpmath.mpf(1) / 2
            term = total = mpmath.mpf(1)
            n = 0
            while term > total * mpmath.mpf(10) ** -20:
                term *= (a + b + n) / (a + 1 + n) * x
                total += term
                n += 1
            p = x**a * (1 - x) ** b / (a * mpmath.beta(a, b)) * total
        else:
            p = 1 - mpmath.betainc(0.5, mpmath.mpf(df) / 2, 0, 1 - x, regularized=True)
        assert relative_error(log10p_from_t(-t, df), -mpmath.log10(p)) < 1e-10


def test_p_of_nothing_is_nothing():
    assert np.isnan(log10p_from_z(np.nan)) and np.isnan(log10p_from_t(np.nan, 5))
    assert log10p_from_z(0.0) == 0 and log10p_from_t(0.0, 9) == 0


@pytest.mark.parametrize(
    ("log10p", "text"),
    [(0.0, "1"), (2.0, "0.01"), (7.30103, "5e-08"), (307.5, "3.16228e-308"), (420.0, "1e-420"), (419.5, "3.16228e-420"),
     (400.0000000001, "1e-400"), (12345.25, "5.62341e-12346"), (np.nan, "NA")],
)  # fmt: skip
def test_p_as_text(log10p, text):
    assert p_text(np.array([log10p])) == [text]
    if np.isfinite(log10p):
        assert float(-mpmath.log10(mpmath.mpf(text))) == pytest.approx(log10p, abs=3e-6)


def folder(store: Path) -> Path:
    publish_json(store.parent / "manifest.json", {"id": "x", "stage": "gwas"})
    return store.parent


def test_a_finished_folder_opens(store):
    assert Sumstats.open(folder(store)).n_variants == M


def test_bad_inputs(store, tmp_path):
    with pytest.raises(InputError, match="does not exist; give sumstats="):
        Sumstats.open(tmp_path / "nowhere")
    with pytest.raises(InputError, match="unfinished.*run gwas again"):
        Sumstats.open(store.parent)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no sumstats\.zarr"):
        Sumstats.open(tmp_path / "empty")
    read = Sumstats.open(folder(store))
    with pytest.raises(InputError, match="no trait 'z01'; did you mean z001"):
        read.log10p("z01")
    with pytest.raises(InputError, match="the traits are z000, z001, height"):
        read.beta("qqqqqqqq")


def test_parts_of_the_arrays_are_those_of_the_whole(store):
    """Runs of variants, single ones, and runs of traits; without any asked for, none."""
    read = Sumstats.open(store)
    beta_MP, se_MP = read.effects()
    assert beta_MP.shape == se_MP.shape == (M, P) and beta_MP.dtype == np.float32
    np.testing.assert_array_equal(read.values("se"), se_MP)
    for rows in (np.array([0, 3, 9, 10, 24]), np.array([12]), np.array([], int)):
        for traits in (slice(None), slice(1, 3), slice(2, 2)):
            for found, whole in zip(read.effects_at(rows, traits), (beta_MP, se_MP), strict=True):
                np.testing.assert_array_equal(found, whole[rows, traits])
        for name in ("snp", "position", "minp_trait", "hwe_log10p", "beta"):
            np.testing.assert_array_equal(read.values_at(name, rows), read.values(name)[rows])
    for found, whole in zip(read.effects(7, 23, slice(0, 2)), (beta_MP, se_MP), strict=True):
        np.testing.assert_array_equal(found, whole[7:23, :2])
    assert read.values("snp", 23).tolist() == ["rs23", "rs24"]


@pytest.mark.parametrize(("rows", "expected"), [(1, 10), (19, 10), (20, 20), (1000, 25)])
def test_spans_are_whole_shards(store, rows, expected):
    spans = list(Sumstats.open(store).spans(rows))
    assert spans[0] == (0, expected) and spans[-1][1] == M
    assert all(start == stop for (_, stop), (start, _) in itertools.pairwise(spans))


def test_damage_is_named(store):
    read = Sumstats.open(store)
    for name, shard in (("beta", store / "beta" / "c" / "0" / "0"), ("position", store / "position" / "c" / "0")):
        data = shard.read_bytes()
        shard.write_bytes(data[: len(data) // 2])
        with pytest.raises(InputError, match=f"the array {name} is damaged .*overwrite=true"):
            read.values(name)


def test_a_foreign_zarr_is_named(store):
    (store / "se" / "zarr.json").unlink()
    with pytest.raises(InputError, match="lacks the arrays se"):
        Sumstats.open(store)
    (store / "zarr.json").write_text("{")
    with pytest.raises(InputError, match="is not a Zarr group"):
        Sumstats.open(store)
