"""One function a verb. Those without text of their own take signature and help from the verb's configuration."""

from __future__ import annotations

import inspect as inspection
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.config import describe
from hpc.errors import ConfigError
from udipdist.notebook import keys as given
from udipdist.notebook.outputs import (
    Clusters,
    Loci,
    Output,
    Panel,
    Phewas,
    Picture,
    Probes,
    Run,
    Sumstats,
    Volumes,
    made,
)

if TYPE_CHECKING:
    import pandas as pd

    from udipdist.cohort.example import Example


def gwas(
    *,
    genotypes: str | os.PathLike[str],
    phenotypes: pd.DataFrame | str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    **keys: Any,
) -> Sumstats:
    """Test every variant against every trait in one pass over the genotypes.

    Parameters
    ----------
    genotypes : path
        Prefix of PLINK .bed/.bim/.fam; {chr} in it stands for 1..22, X, XY.
    phenotypes : pandas.DataFrame or path
        FID, IID and one column a trait. A DataFrame is written beside `out`, as OUT.phenotypes.parquet, and stays
        there, for the manifest names it. To test several tables in one pass use the command line.
    out : path, optional
        Folder to write. The default is temporary, and goes with the object that is returned.
    **keys
        Any other key of the verb gwas, as `udipdist gwas --help` lists them: `covariates=` (a DataFrame or a path),
        `formula="age + sex"`, `sparse_grm=`, `test="linear"`, `null_model={"total_variance": "sample"}` ...

    Returns
    -------
    Sumstats

    Raises
    ------
    hpc.errors.ConfigError
        For keys that are unknown or of no use; it names all of them, each with its remedy.
    hpc.errors.InputError
        For files that do not fit each other.

    Examples
    --------
    >>> import udipdist as ud
    >>> cohort = ud.example()
    >>> found = ud.gwas(
    ...     genotypes=cohort.genotypes,
    ...     phenotypes=cohort.phenotypes,
    ...     covariates=cohort.covariates,
    ...     formula="age + sex",
    ...     test="linear",
    ... )
    >>> found.traits
    ['z000', 'z001', 'z002']
    >>> float(found.trait("z000").set_index("snp").log10p["rs120"]) > 8
    True
    """
    if isinstance(phenotypes, list | tuple) and len(phenotypes) > 1:
        raise ConfigError("phenotypes: is a list; give one table a call, or use the command line for several")
    keys = {"genotypes": genotypes, "phenotypes": phenotypes, "out": out, **keys}
    return made("gwas", Sumstats, keys, "gwas")


def example(folder: str | os.PathLike[str] | None = None, seed: int = 1) -> Example:
    """A tiny cohort to try things with: 200 people, 300 variants, three traits, and scans of 24 of the people.

    Parameters
    ----------
    folder : path, optional
        Where to write it. The default is temporary, and goes when Python ends.
    seed : int
        Of the random numbers; the same seed gives the same files.

    Returns
    -------
    udipdist.cohort.example.Example
        With `genotypes` (a prefix), `scans` (a folder), and the tables `phenotypes` and `covariates`.

    Examples
    --------
    >>> import udipdist as ud
    >>> ud.example().phenotypes.shape
    (200, 5)
    """
    from udipdist.cohort.example import make

    if folder is None:
        keeper = tempfile.TemporaryDirectory(prefix="udipdist-example-")
        _KEPT.append(keeper)
        folder = keeper.name
    return make(Path(folder), seed)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []  # examples, until Python ends


def embed(*, out: str | os.PathLike[str] | None = None, **keys: Any) -> pd.DataFrame:
    import pandas as pd

    written = made("embed", Output, {"out": out, **keys}, "latents.parquet")  # held: a temporary one goes with it
    return pd.read_parquet(written.path)


def inspect(path: str | os.PathLike[str], **keys: Any) -> dict[str, Any]:
    from udipdist.config import InspectConfig
    from udipdist.inspection.verb import look

    config = InspectConfig.parse({"path": given.plain(path), **keys})
    return look(config.path, config.contents).tree()


def _verb(name: str, kind: type[Output], default: str | None, where: str = "out") -> Callable[..., Any]:
    """The function of a verb; `default` is the name of its output in a temporary folder, None where it must be said."""

    def function(**keys: Any) -> Output:
        if default is None and keys.get(where) is None:
            raise ConfigError(f"{where}: is required, as other calls go on with this output; give {where}=FOLDER")
        return made(name, kind, keys, default or "", where)

    return _described(function, name, kind.__name__, where if default is not None else None)


def _described(function: Callable[..., Any], name: str, returns: str, where: str | None = "out") -> Callable[..., Any]:
    """`function` with name, signature and numpydoc text from the configuration of the verb."""
    verb = given.verb(name)
    empty = inspection.Parameter.empty
    parameters = []
    for key, field in verb.config.model_fields.items():
        default = None if key == where else empty if field.is_required() else field.default
        parameters.append(inspection.Parameter(key, inspection.Parameter.KEYWORD_ONLY, default=default))
    lines = [inspection.getdoc(verb.config) or "", "", "Parameters", "----------"]
    for doc in describe(verb.config):
        default = "required" if doc.default == "(required)" else f"default {doc.default}"
        if doc.key == where:
            default = "default temporary, gone with the object that is returned"
        lines += [f"{doc.key} : {doc.type}, {default}", f"    {doc.meaning}"]
    lines += ["", "Returns", "-------", returns, "", "Notes", "-----"]
    lines.append("Nested keys (a.b) are given as a dict, a={'b': value}. A DataFrame will do for a table of people.")
    function.__name__ = function.__qualname__ = name.replace(" ", "_").replace("-", "_")
    function.__module__ = __name__
    function.__doc__ = "\n".join(lines)
    function.__signature__ = inspection.Signature(parameters)  # type: ignore[attr-defined]
    return function


_described(embed, "embed", "pandas.DataFrame\n    FID, IID, and float32 columns z000, z001 ...")
_described(inspect, "inspect", "dict\n    What `udipdist inspect format=json` prints.", where=None)
simulate = _verb("simulate", Output, "cohort")
ingest = _verb("ingest", Volumes, "volumes.zarr")
volumes = _verb("volumes", Output, "volumes")
train = _verb("train", Run, "run", where="run_dir")
grm = _verb("grm", Output, "grm")
gwas_plan = _verb("gwas-plan", Output, None)
gwas_part = _verb("gwas-part", Output, None)
gwas_finish = _verb("gwas-finish", Sumstats, None)
export = _verb("export", Output, "sumstats.tsv.gz")
loci = _verb("loci", Loci, "loci")
panel = _verb("panel", Panel, "panel")
interpret_attention = _verb("interpret attention", Output, "attention")
interpret_perturb = _verb("interpret perturb", Output, "perturb")
interpret_saliency = _verb("interpret saliency", Output, "saliency")
interpret_gallery = _verb("interpret gallery", Output, "gallery")
probe = _verb("probe", Probes, "probe")
interpret_clusters = _verb("interpret clusters", Clusters, "clusters")
phewas = _verb("phewas", Phewas, "phewas")
erase = _verb("erase", Output, "erased.parquet")
plot = _verb("plot", Picture, "plot.png")
report = _verb("report", Output, "report.html")
run = _verb("run", Output, "run")
compare = _verb("compare", Output, "compare")
demo = _verb("demo", Output, "demo")
sweep = _verb("sweep", Output, "sweep")
sweep_demo = _verb("sweep-demo", Output, "sweep-demo")
