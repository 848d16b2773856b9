"""The association of a sweep, one for all trials: tables of latents -> loci of each, in one pass over the genotypes.

All tables that wait when it becomes free share a pass: one read and one decoding of the genotypes, one set of null
models, one index of the reference for LD. A pass has a folder, and what it is to do stands there before it begins: one
that was killed is ended first by whoever comes next, and a table that has its scores is not tested again.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from hpc.errors import Error, InputError, some
from hpc.files import publish, publish_json, publish_text, remove
from hpc.stage import read_manifest, stage
from udipdist.config import SweepConfig, VariantFilter
from udipdist.config.analyses import LOCI_FOLDERS, MINP, OVER_TRAITS
from udipdist.genotypes import filters
from udipdist.genotypes.source import open_genotypes
from udipdist.gwas import outputs
from udipdist.gwas.scan import verb as scan
from udipdist.loci import search as finding
from udipdist.loci.output import write_loci
from udipdist.loci.panel import panel
from udipdist.loci.reference import Reference
from udipdist.sumstats.opening import open_statistics
from udipdist.sweep import configs

log = logging.getLogger(__name__)

_REQUESTS, _DONE, _TABLES, _GWAS = "requests.json", "done.json", "tables", "gwas"


@dataclass(frozen=True)
class Request:
    """A table of latents to test, and where its scores go: `out`/{scores.json, loci/, loci_multivariate/, panel/}.

    `name` is unlike that of any other table. `known` stands in scores.json beside what is found. `full`: with all
    variants, where the sweep screens with some.
    """

    name: str
    latents: str
    out: str
    known: dict[str, Any]
    full: bool = False

    @property
    def scores(self) -> dict[str, Any] | None:
        """What was found before, if it was."""
        path = Path(self.out) / "scores.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def tree(self, place: Path) -> dict[str, Any]:
        """For JSON: paths as seen from `place`, so that a sweep may be moved."""
        return asdict(self) | {key: os.path.relpath(getattr(self, key), place) for key in ("latents", "out")}

    @classmethod
    def of(cls, tree: dict[str, Any], place: Path) -> Self:
        """From JSON."""
        return cls(**{**tree, **{key: os.path.normpath(place / tree[key]) for key in ("latents", "out")}})


class Association:
    """Tests tables of latents for a sweep. `cpus`: cores it may use, all where None."""

    def __init__(self, config: SweepConfig, cpus: int | None = None):
        self.config, self.cpus = config, cpus
        self.place = config.out.absolute() / "association"
        if cpus and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[-cpus:]))

    def handle(self, requests: Sequence[Request]) -> list[dict[str, Any] | Error]:
        """The content of scores.json for each request, or the error that is its own."""
        self._end_unfinished()
        errors: dict[str, Error] = {}
        for full in (False, True):
            waiting = [one for one in requests if one.scores is None and one.full == full]
            for start in range(0, len(waiting), self.config.tables_per_pass):
                errors |= self._test(waiting[start : start + self.config.tables_per_pass])
        return [errors[one.name] if one.name in errors else _scores(one) for one in requests]

    def _test(self, requests: Sequence[Request]) -> dict[str, Error]:
        """Test tables together; where that fails, each alone, so that an error reaches its own table only."""
        folder = self._new_folder()
        publish_json(folder / _REQUESTS, [one.tree(folder) for one in requests])
        try:
            self._run(folder, requests)
        except Error as error:
            remove(folder)
            if len(requests) == 1:
                return {requests[0].name: error}
            log.warning("%d tables cannot be tested together (%s); they are tested one by one", len(requests), error)
            return {name: own for one in requests for name, own in self._test([one]).items()}
        return {}

    def _new_folder(self) -> Path:
        numbers = [int(path.name.removeprefix("pass-")) for path in self.place.glob("pass-*")]
        folder = self.place / f"pass-{max(numbers, default=0) + 1:04d}"
        folder.mkdir(parents=True)
        return folder

    def _end_unfinished(self) -> None:
        for folder in sorted(self.place.glob("pass-*")):
            if (folder / _DONE).exists():
                continue
            if not (folder / _REQUESTS).exists():
                remove(folder)
                continue
            trees = json.loads((folder / _REQUESTS).read_text(encoding="utf-8"))
            requests = [Request.of(tree, folder) for tree in trees]
            log.info("%s: continuing an unfinished pass of %d tables", folder, len(requests))
            try:
                self._run(folder, requests)
            except Error as error:  # who asked then asks again, and is told
                log.warning("%s: %s; this pass is abandoned", folder, error)
                remove(folder)

    def _run(self, folder: Path, requests: Sequence[Request]) -> None:
        """Do what is left of a pass. Raises what gwas, loci and panel raise."""
        started = time.monotonic()
        left = [one for one in requests if one.scores is None]
        tables = [_prepare(one, folder / _TABLES) for one in requests]
        places: dict[str, Path] = {}
        if left:
            with threadpool_limits(self.cpus):
                places = self._gwas(folder, [table for table in tables if table.path is not None])
        seconds = {"gwas": time.monotonic() - started}
        reference = finding.reference_of(configs.loci_options(self.config)) if left else None
        for table in tables:
            if table.request.scores is None:
                self._score(table, places.get(table.request.name), reference)
        seconds["loci"] = time.monotonic() - started - seconds["gwas"]
        if not self.config.keep_sumstats:
            remove(folder / _GWAS)
            remove(folder / _TABLES)
        publish_json(folder / _DONE, {"tables": [one.name for one in requests], "seconds": seconds})
        log.info("%s: %d tables tested in %.1f s", folder, len(requests), sum(seconds.values()))

    def _gwas(self, folder: Path, tables: Sequence[_Table]) -> dict[str, Path]:
        """One pass over the genotypes for all tables; the folder of summary statistics of each."""
        if not tables:
            return {}
        paths = tuple(table.path for table in tables)
        extract = None if tables[0].request.full else self._thinned()
        config = configs.gwas_config(self.config, paths, folder / _GWAS, extract)
        publish_text(folder / "gwas.yaml", config.yaml())
        if read_manifest(config.out) is None:
            scan.gwas(config)
        if len(tables) == 1:
            return {tables[0].request.name: config.out}
        names = outputs.names(paths)
        return {table.request.name: config.out / name for table, name in zip(tables, names, strict=True)}

    def _thinned(self) -> Path | None:
        """The list of variants of a screening: made once, the same at every start."""
        wanted = self.config.objective.variants
        if wanted is None:
            return None
        path = self.place / "screened_variants.txt"
        if not path.exists():
            ids = thinned(configs.scan_options(self.config), wanted)
            publish_text(path, "\n".join(ids) + "\n")
        return path

    def _score(self, table: _Table, sumstats: Path | None, reference: Reference | None) -> None:
        """Loci of both tests, hits in the panel, and scores.json, which is written last."""
        request, out = table.request, Path(table.request.out)
        found = {"loci": 0, "multivariate_loci": 0, "panel_hits": 0}
        tested = 0
        if sumstats is not None and reference is not None:
            found["loci"], found["multivariate_loci"] = self._loci(table, sumstats, reference, out)
            config = configs.panel_config(self.config, out / LOCI_FOLDERS[MINP], out / "panel")
            panel(config.model_copy(update={"overwrite": True}))
            found["panel_hits"] = json.loads((out / "panel" / "panel.json").read_text(encoding="utf-8"))["n_hits"]
            tested = read_manifest(sumstats)["facts"]["n_tested"]
        screening = self.config.objective.variants is not None and not request.full
        scores = {**request.known, **found, "variants": tested, "screening": screening}
        publish_json(out / "scores.json", scores | {"latents": table.used, "collapsed": table.collapsed})

    def _loci(self, table: _Table, sumstats: Path, reference: Reference, out: Path) -> list[int]:
        """The loci of the smallest p and of the joint test, each in its folder; how many there are."""
        config = configs.loci_config(self.config, sumstats, OVER_TRAITS, out)
        if config.tests is None:  # latents that say nothing were tests all the same
            config = config.model_copy(update={"tests": table.used + len(table.collapsed)})
        statistics, counts = open_statistics(sumstats), []
        for trait, name in LOCI_FOLDERS.items():
            own = config.of_test(trait).model_copy(update={"trait": trait, "out": out / name})
            with stage("loci", own.out, own, {"sumstats": sumstats}, overwrite=True) as running:
                facts = write_loci(own.out, [finding.search(table.request.name, statistics, reference, own)], own)
                running.note(**facts)
            counts.append(facts["n_loci"])
        return counts


@dataclass(frozen=True)
class _Table:
    """A request and the table that is tested for it (None: no latent varies); `collapsed` latents are left out."""

    request: Request
    path: Path | None
    used: int
    collapsed: list[str]


def _prepare(request: Request, folder: Path) -> _Table:
    """Put the table of a request into `folder` under its name, without latents that are the same for everybody.

    Raises InputError for latents that are no numbers.
    """
    latents = pd.read_parquet(request.latents)
    names = np.array([name for name in latents if name not in ("FID", "IID")])
    values_NP = latents[names].to_numpy(np.float64)
    bad = names[~np.isfinite(values_NP).all(axis=0)]
    if len(bad):
        raise InputError(f"{request.latents}: {some(bad)} have values that are not numbers; the training has diverged")
    constant_P = np.ptp(values_NP, axis=0) == 0
    if constant_P.all():
        return _Table(request, None, 0, names.tolist())
    path = folder / f"{request.name}.parquet"
    if not path.exists():
        with publish(path) as partial:
            latents.drop(columns=names[constant_P]).to_parquet(partial, index=False)
    return _Table(request, path, int((~constant_P).sum()), names[constant_P].tolist())


def thinned(config: VariantFilter, wanted: int) -> list[str]:
    """The ids of about `wanted` of the variants that a gwas would test, at equal steps along the .bim: blind to LD,
    effects and p. Variants without an id of their own are passed over. Raises InputError where there is none."""
    variants = open_genotypes(config.genotypes).variants
    rows = filters.choose(variants, config).rows
    snp = variants["snp"] if rows is None else variants["snp"].iloc[rows]
    own = snp[~snp.duplicated(keep=False) & (snp != ".")]
    if not len(own):
        raise InputError(
            f"{config.genotypes}.bim: no variant has its own id, so objective.variants= cannot choose; give "
            "ids, or leave objective.variants out"
        )
    at = np.unique(np.linspace(0, len(own) - 1, min(wanted, len(own))).round().astype(int))
    return own.iloc[at].tolist()


def _scores(request: Request) -> dict[str, Any]:
    scores = request.scores
    if scores is None:
        raise AssertionError(f"{request.name}: tested, but {request.out}/scores.json is not there")
    return scores
