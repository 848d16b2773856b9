"""What the functions of the Python interface return: an output on disk, and how to look into it."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hpc.errors import InputError
from hpc.stage import read_manifest
from udipdist.notebook import keys as given
from udipdist.notebook.keys import Place

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from udipdist.config import TrainConfig
    from udipdist.sumstats.store import Sumstats as Store


Made = TypeVar("Made", bound="Output")


class Output:
    """An output on disk. It may be given wherever a key takes a path.

    Attributes
    ----------
    path : pathlib.Path
        The file, folder or prefix that was written. Without `out` it is temporary, and goes with the last reference to
        this object.
    """

    def __init__(self, place: Place) -> None:
        self.path, self._keeper = place.path, place.keeper

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @property
    def manifest(self) -> dict[str, Any]:
        """What made the output from what, and what it took; empty where the verb writes no manifest."""
        return read_manifest(self.path) or {}


class Sumstats(Output):
    """Summary statistics: effects of every variant on every trait.

    `ud.gwas` returns it, and `ud.open_sumstats` opens it from a folder that gwas wrote.
    """

    @cached_property
    def _store(self) -> Store:
        from udipdist.sumstats.store import Sumstats as Store

        return Store.open(self.path)

    @property
    def traits(self) -> list[str]:
        """The names of the traits."""
        return list(self._store.traits)

    def __len__(self) -> int:
        return self._store.n_variants

    def to_xarray(self) -> xr.Dataset:
        """The store as a dataset, read when values are asked for.

        Returns
        -------
        xarray.Dataset
            `beta` and `se` (variant, trait), columns a variant (`n`, `af1`, `minp_log10p` ...), `score_covariance`
            (trait, other_trait) and `score_trace` (trait) of the joint test, and the coordinates `trait`, `chrom`,
            `position`, `snp`, `a1` (the effect allele) and `a2`.

        Examples
        --------
        >>> import udipdist as ud
        >>> cohort = ud.example()
        >>> found = ud.gwas(genotypes=cohort.genotypes, phenotypes=cohort.phenotypes, test="linear")
        >>> dataset = found.to_xarray()
        >>> dict(dataset.sizes)
        {'variant': 300, 'trait': 3, 'other_trait': 3}
        >>> str(dataset.snp.values[int(abs(dataset.beta).sel(trait="z000").argmax("variant"))])
        'rs120'
        """
        import xarray as xr

        from udipdist.sumstats.store import COLUMNS, STORE

        self._store  # noqa: B018 - refuses what is unfinished or damaged
        place = self.path / STORE if (self.path / STORE).exists() else self.path
        return xr.open_zarr(place, consolidated=False, chunks=None).set_coords(list(COLUMNS))

    def trait(self, name: str) -> pd.DataFrame:
        """The results of one trait, a row a variant.

        Parameters
        ----------
        name : str
            A trait; or `minp`, the smallest p over the traits, or `multivariate`, the joint test of them.

        Returns
        -------
        pandas.DataFrame
            chrom, position, snp, a1 (the effect allele), a2, n, af1; of a trait beta and se; of minp the trait; and
            log10p, -log10 of the p-value, which stays finite where p is 0 in floating point. NaN where not tested.

        Raises
        ------
        hpc.errors.InputError
            Where there is no such trait; the message has the nearest name.

        Examples
        --------
        >>> import udipdist as ud
        >>> cohort = ud.example()
        >>> found = ud.gwas(genotypes=cohort.genotypes, phenotypes=cohort.phenotypes, test="linear")
        >>> best = found.trait("z000").nlargest(1, "log10p")
        >>> best[["chrom", "snp", "n"]].values.tolist()
        [['1', 'rs120', 200]]
        """
        table, store = self._store.variants.copy(), self._store
        if name not in ("minp", "multivariate"):
            table["beta"], table["se"] = store.beta(name), store.se(name)
        if name == "minp":
            import numpy as np

            table["trait"] = np.array([*store.traits, None], object)[store.minp_trait()]
        table["log10p"] = store.log10p(name)
        return table

    def loci(self, genotypes: str | os.PathLike[str] | None = None, **keys: Any) -> Loci:
        """The genomic risk loci of these results, by the rules of FUMA.

        Parameters
        ----------
        genotypes : path, optional
            Prefix of .bed/.bim/.fam for LD. The default is what gwas read.
        **keys
            Other keys of the verb loci: `trait="multivariate"`, `p=5e-8`, `out="loci"`; see `help(ud.notebook.loci)`.

        Returns
        -------
        Loci

        Examples
        --------
        >>> import udipdist as ud
        >>> cohort = ud.example()
        >>> found = ud.gwas(genotypes=cohort.genotypes, phenotypes=cohort.phenotypes, test="linear")
        >>> found.loci(p=1e-6).table[["locus", "chrom", "lead_snp", "trait"]].values.tolist()
        [[1, '1', 'rs120', 'z000']]
        """
        if genotypes is None:
            genotypes = self.manifest.get("config", {}).get("genotypes")
        if genotypes is None:
            raise InputError(f"{self.path}: does not say which genotypes it is of; give genotypes=PREFIX")
        keys = {"sumstats": self, "genotypes": genotypes, **keys}
        return made("loci", Loci, keys, "loci")

    def manhattan(self, **keys: Any) -> Picture:
        """A Manhattan plot, which a notebook shows.

        Parameters
        ----------
        **keys
            Any key of the verb plot: `trait="z017"`, `loci=` what `loci` returned, `out="manhattan.pdf"`,
            `width_mm=180` ... See `help(ud.notebook.plot)`.

        Returns
        -------
        Picture

        Examples
        --------
        >>> import udipdist as ud
        >>> cohort = ud.example()
        >>> found = ud.gwas(genotypes=cohort.genotypes, phenotypes=cohort.phenotypes, test="linear")
        >>> picture = found.manhattan(dpi=60)
        >>> picture.path.name
        'plot.png'
        """
        return made("plot", Picture, {"kind": "manhattan", "sumstats": self, **keys}, "plot.png")


class Loci(Output):
    """Genomic risk loci, in the folder that the verb loci wrote."""

    def __len__(self) -> int:
        return len(self.table)

    @property
    def table(self) -> pd.DataFrame:
        """A row a locus: locus, chrom, start, end, lead_snp, log10p, trait ..."""
        import pandas as pd

        return pd.read_parquet(self.path / "loci.parquet")

    @property
    def lead_snps(self) -> pd.DataFrame:
        """leadSNPs.txt, as FUMA has it."""
        return _tsv(self.path / "leadSNPs.txt")

    @property
    def independent_snps(self) -> pd.DataFrame:
        """IndSigSNPs.txt, as FUMA has it."""
        return _tsv(self.path / "IndSigSNPs.txt")

    def panel(self, **keys: Any) -> Panel:
        """These loci compared with panels of known ones; any key of the verb panel (`help(ud.notebook.panel)`)."""
        return made("panel", Panel, {"loci": self, **keys}, "panel")


class Panel(Output):
    """Loci compared with known ones, in the folder that the verb panel wrote."""

    @property
    def hits(self) -> pd.DataFrame:
        """hits.tsv: a row a locus."""
        return _tsv(self.path / "hits.tsv")


class Probes(Output):
    """What linear models read from latents, in the folder that the verb probe wrote."""

    @property
    def table(self) -> pd.DataFrame:
        """probes.tsv: a row a target and table of latents."""
        return _tsv(self.path / "probes.tsv")

    @property
    def comparisons(self) -> pd.DataFrame:
        """comparisons.tsv: the tables of latents against each other, target by target."""
        return _tsv(self.path / "comparisons.tsv")


class Phewas(Output):
    """Which diagnoses latents tell, in the folder that the verb phewas wrote."""

    @property
    def table(self) -> pd.DataFrame:
        """phewas.tsv: a row a phecode and table of latents; phecodes are text."""
        import pandas as pd

        return pd.read_csv(self.path / "phewas.tsv", sep="\t", dtype={"phecode": "str"})

    @property
    def summary(self) -> pd.DataFrame:
        """summary.tsv: a row a table of latents."""
        return _tsv(self.path / "summary.tsv")


class Clusters(Output):
    """Lead SNPs by their direction in latent space, in the folder that the verb interpret clusters wrote.

    Of two sumstats it has `agreement`, and the tables of each stand in a folder below it.
    """

    @property
    def table(self) -> pd.DataFrame:
        """clusters.tsv: a row a lead SNP, in the order of the tree."""
        return _tsv(self.path / "clusters.tsv")

    @property
    def names(self) -> pd.DataFrame:
        """names.tsv: a row a cluster."""
        return _tsv(self.path / "names.tsv")

    @property
    def agreement(self) -> pd.DataFrame:
        """agreement.tsv: how alike the trees of two analyses are."""
        return _tsv(self.path / "agreement.tsv")


class Volumes(Output):
    """A store of volumes, which the verb ingest wrote."""

    def to_xarray(self, modality: str | None = None) -> xr.Dataset:
        """See `ud.open_volumes`."""
        return open_volumes(self.path, modality)


class Run(Output):
    """A training run: its configuration, its metrics, and its network to embed with."""

    @property
    def config(self) -> TrainConfig:
        """The configuration of the training, with every default resolved."""
        from udipdist.config import TrainConfig

        return TrainConfig.load(self.path / "config.yaml")

    @property
    def metrics(self) -> pd.DataFrame:
        """metrics.jsonl: a row a line of it, in the order of the optimiser steps."""
        import pandas as pd

        return pd.read_json(self.path / "metrics.jsonl", lines=True)

    def embed(self, store: str | os.PathLike[str] | None = None, **keys: Any) -> pd.DataFrame:
        """The latents of the subjects of a store.

        Parameters
        ----------
        store : path or Volumes, optional
            The store to embed. The default is that of the training.
        **keys
            Other keys of the verb embed: `checkpoint="best"`, `out="latents.parquet"`; see `help(ud.notebook.embed)`.

        Returns
        -------
        pandas.DataFrame
            FID, IID, and float32 columns z000, z001 ...: phenotypes for `ud.gwas`.

        Examples
        --------
        >>> import udipdist as ud
        >>> scans = ud.ingest(volumes=ud.example().scans, workers=0)
        >>> small = {"width": 16, "depth": 1, "heads": 2, "latent": 4}
        >>> trained = ud.train(store=scans, epochs=0, global_batch=4, model=small, tensorboard=False)
        >>> latents = ud.open_run(trained.path).embed()
        >>> latents.shape, list(latents.columns)
        ((24, 6), ['FID', 'IID', 'z000', 'z001', 'z002', 'z003'])
        """
        import pandas as pd

        keys = {"run_dir": self, "store": self.config.store if store is None else store, **keys}
        written = made("embed", Output, keys, "latents.parquet")  # held: a temporary one goes with it
        return pd.read_parquet(written.path)


class Picture(Output):
    """A figure in a file; a notebook shows PNG and SVG."""

    def _repr_png_(self) -> bytes | None:
        return self.path.read_bytes() if self.path.suffix.lower() == ".png" else None

    def _repr_svg_(self) -> str | None:
        return self.path.read_text(encoding="utf-8") if self.path.suffix.lower() == ".svg" else None


def made(name: str, kind: type[Made], keys: dict[str, Any], default: str, where: str = "out") -> Made:
    """Run the verb `name` with these keys and return its output. `where` is the key that says where it is written; a
    temporary output is called `default`."""
    place = Place.of(keys.get(where), default)
    given.execute(name, given.configuration(name, {**keys, where: place.path}, place))
    return kind(place)


def open_sumstats(path: str | os.PathLike[str]) -> Sumstats:
    """Summary statistics from a folder that gwas wrote, or a sumstats.zarr.

    Parameters
    ----------
    path : path
        The folder, `out` of gwas.

    Returns
    -------
    Sumstats

    Raises
    ------
    hpc.errors.InputError
        Where it is missing, unfinished or damaged.

    Examples
    --------
    >>> import udipdist as ud
    >>> cohort = ud.example()
    >>> done = ud.gwas(genotypes=cohort.genotypes, phenotypes=cohort.phenotypes, test="linear")
    >>> ud.open_sumstats(done.path).traits
    ['z000', 'z001', 'z002']
    """
    found = Sumstats(Place(Path(path), None))
    found.traits  # noqa: B018 - refuses what cannot be opened
    return found


def open_volumes(path: str | os.PathLike[str], modality: str | None = None) -> xr.Dataset:
    """A store of volumes as a dataset, read when voxels are asked for.

    Parameters
    ----------
    path : path or Volumes
        The store, `out` of ingest.
    modality : str, optional
        Which images of a store that holds several, as "T1".

    Returns
    -------
    xarray.Dataset
        `image` (subject, x, y, z), the stored values, axes in RAS order; the brain `mask`; of each subject the
        `affine`, `mean` and `std` of its foreground, `scl_slope` and `scl_inter` (value = stored * slope + inter).

    Raises
    ------
    hpc.errors.InputError
        Where there is no finished store, or it holds several modalities and none is said.

    Examples
    --------
    >>> import udipdist as ud
    >>> scans = ud.ingest(volumes=ud.example().scans, workers=0)
    >>> dataset = ud.open_volumes(scans)
    >>> dict(dataset.image.sizes)
    {'subject': 24, 'x': 10, 'y': 12, 'z': 9}
    >>> int(dataset.image.sel(subject="I003").max()) > 0
    True
    """
    import xarray as xr

    from udipdist.volumes.store import VolumeStore

    return xr.open_zarr(VolumeStore.open(os.fspath(path), modality).path, consolidated=False, chunks=None)


def open_run(path: str | os.PathLike[str]) -> Run:
    """A training run from its folder.

    Parameters
    ----------
    path : path
        The folder, `run_dir` of train.

    Returns
    -------
    Run
        With `embed`, `config` and `metrics`.

    Raises
    ------
    hpc.errors.InputError
        Where the folder is not that of a training.

    Examples
    --------
    >>> import udipdist as ud
    >>> scans = ud.ingest(volumes=ud.example().scans, workers=0)
    >>> small = {"width": 16, "depth": 1, "heads": 2, "latent": 4}
    >>> trained = ud.train(store=scans, epochs=0, global_batch=4, model=small, tensorboard=False)
    >>> ud.open_run(trained.path).config.model.latent
    4
    """
    if not (Path(path) / "config.yaml").exists():
        raise InputError(f"{path}: has no config.yaml, so it is not the folder of a training; give run_dir of train")
    return Run(Place(Path(path), None))


def _tsv(path: Path) -> pd.DataFrame:
    import pandas as pd

    return pd.read_csv(path, sep="\t", dtype={"chr": str})
