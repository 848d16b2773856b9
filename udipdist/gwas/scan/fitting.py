"""From people, covariates and G to the models that test variants: one for each group of traits with the same people."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from hpc.errors import ConfigError, InputError
from udipdist.config import NullOptions, Relatedness
from udipdist.gwas import samples
from udipdist.gwas.engine.joint import GroupWeights
from udipdist.gwas.engine.prepared import Model, NullTraits, TraitInDesign, prepare, residualise
from udipdist.gwas.null import reml
from udipdist.gwas.scan.rare import excess_kurtosis
from udipdist.people import design as designs
from udipdist.relatedness import grm

log = logging.getLogger(__name__)

SINGULAR = 1e-6  # the smallest eigenvalue of a covariance, of Vg + Ve, that can be worked with
FEWEST_LEFT = 2  # residual degrees of freedom that every trait must have


@dataclass(frozen=True)
class Fitted:
    """Of a group of traits: the test, their rows of null.tsv, and their weights for the joint test."""

    model: Model
    frame: pd.DataFrame
    weights: GroupWeights


def relatedness(config: Relatedness, sample: samples.Sample) -> sparse.csr_array | None:
    """G of the analysed people [N, N], or None for the linear test. Raises InputError."""
    if config.test == "linear":
        if config.sparse_grm is not None:
            log.info("test=linear ignores relatives: sparse_grm is not used")
        return None
    prefix = str(config.sparse_grm)
    people, matrix = grm.read(prefix)
    row_N = grm.rows_of(prefix, people, sample.people, sample.match)
    return matrix[row_N][:, row_N].tocsr()


def fit_group(
    config: NullOptions, sample: samples.Sample, group: samples.Group, matrix: sparse.csr_array | None
) -> Fitted:
    """Null models and test of the traits that share their people.

    Raises InputError for traits that have too few people or are linear functions of the covariates, ConfigError where
    the weights cannot be factorised to weight_tolerance.
    """
    names = [sample.traits[p] for p in group.trait_P]
    design = designs.design(sample.covariates_of(group))
    n, k = design.q_NK.shape
    if n - k - 1 < FEWEST_LEFT:
        raise InputError(
            f"{sample.table_of(group.trait_P[0]).path}: trait {names[0]} has {n} people for {k} columns of covariates "
            "(with the intercept); use fewer covariates, or leave the trait out"
        )
    if matrix is None:
        families = grm.Families.unrelated(n)
    else:
        families = grm.decompose(matrix[group.row_N][:, group.row_N].tocsr(), config.max_family)
    order_N = families.order_N
    q_NK = design.q_NK[order_N]
    try:
        y_NP, scale_P = residualise(sample.y_NP[group.row_N[order_N]][:, group.trait_P], q_NK)
    except TraitInDesign as error:
        where, name = sample.table_of(group.trait_P[error.args[0]]).path, names[error.args[0]]
        raise InputError(f"{where}: trait {name} is a linear function of the covariates; leave it out") from None
    if config.adjust == "phenotype":
        q_NK = np.full((n, 1), 1 / np.sqrt(n))
    models = _null_models(config, families, y_NP, scale_P, q_NK, names)
    try:
        model = prepare(
            families=families,
            fam_N=sample.fam_N[group.row_N[order_N]],
            traits=NullTraits(
                trait_P=group.trait_P,
                y_NP=y_NP,
                scale_P=scale_P,
                vg_P=models.vg_P / scale_P**2,
                ve_P=models.ve_P / scale_P**2,
            ),
            q_NK=q_NK,
            test=config.test,
            adjust=config.adjust,
            weight_tolerance=config.weight_tolerance,
        )
    except ArithmeticError as error:
        raise ConfigError(f"weight_tolerance={config.weight_tolerance}: {error}; type a larger one") from None
    frame = models.frame(names).assign(n=n, k=q_NK.shape[1], test=config.test, kurtosis=excess_kurtosis(y_NP))
    if config.test == "linear":  # nothing of the kind was estimated
        frame[["vg", "h2"]] = np.nan
    columns = ["trait", "n", "k", "vg", "ve", "h2", "h2_se", "boundary", "test", "vg_se", "ve_se", "kurtosis"]
    return Fitted(
        model=model,
        frame=frame[columns],
        weights=GroupWeights.of(
            families,
            models.vg_P / scale_P**2,
            models.ve_P / scale_P**2,
            q_NK,
            config.test == "linear",
            config.adjust == "gls",
        ),
    )


def _null_models(
    config: NullOptions,
    families: grm.Families,
    y_NP: np.ndarray,
    scale_P: np.ndarray,
    q_NK: np.ndarray,
    names: list[str],
) -> reml.NullModels:
    """Variance components on the scale of the traits."""
    if config.test == "linear":
        n, k = q_NK.shape
        return reml.given(np.zeros(len(names)), (y_NP**2).sum(axis=0) / (n - k) * scale_P**2)
    if config.null_model.variance is not None:
        vg_P, ve_P = reml.read_components(config.null_model.variance, names)
        lowest_P = (vg_P * families.d_N.min() + ve_P) / (vg_P + ve_P)
        if (lowest_P < SINGULAR).any():
            name = names[int(np.argmax(lowest_P < SINGULAR))]
            raise InputError(
                f"{config.null_model.variance}: Vg and Ve of {name} give no valid covariance; Ve is too small"
            )
        return reml.given(vg_P, ve_P)
    u_NN = families.matrix()
    models = reml.fit(u_NN.T @ y_NP * scale_P, u_NN.T @ q_NK, families.d_N, config.null_model.total_variance)
    if "flat" in models.boundary_P:
        log.warning("the sparse GRM has no relatives among the people analysed: Vg is 0, as in test=linear")
    for flag, meaning in (("lower", "Vg = 0"), ("upper", "the upper limit of Vg")):
        count = models.boundary_P.count(flag)
        if count:
            log.info("%d of %d traits have the maximum of their likelihood at %s", count, len(names), meaning)
    return models
