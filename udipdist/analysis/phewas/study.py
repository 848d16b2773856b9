"""One table of latents against many phecodes: score tests of all, exact tests of those that look interesting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hpc.progress import Progress
from udipdist.analysis.phewas import crossfit, logistic, multiple

BLOCK = 128  # codes at once
EXACT_BELOW = 0.05  # p of the score test from which the exact tests are done
FEW = 200  # cases of a half: with fewer, Firth's test decides
_SPANNED = 1e-7  # length of what a column of length 1 adds
_INTERVAL = 1.959963984540054
SCORE, LOGISTIC, FIRTH = "score", "logistic", "firth"


@dataclass(frozen=True)
class Plan:
    """How a study is made: `both` halves cross-fitted, or the published rule, which tests in the second half alone
    and from both sides; shuffles of people; seed."""

    both: bool
    permutations: int
    seed: int


@dataclass(frozen=True)
class Found:
    """A row a code; lambda of all; of the shuffled ones lambda (NaN without shuffles); the correlation of halves."""

    table: pd.DataFrame
    inflation: float
    shuffled_inflation: float
    correlation: float


def associate(latents: crossfit.Latents, q_NK: np.ndarray, status_PN: np.ndarray, plan: Plan, label: str) -> Found:
    """Test every code. Columns: z, p, p_score, p_logistic, p_firth (NaN where not done), test, beta (log odds ratio
    per SD), se, odds_ratio, lower, upper, bonferroni, q, p_permutation and p_familywise (NaN without shuffles)."""
    blocks, shuffles = [], []
    total = len(status_PN)
    with Progress(f"phewas of {label}", total, "phecodes") as progress:
        for start in range(0, total, BLOCK):
            status_BN = status_PN[start : start + BLOCK]
            halves = crossfit.models_of(status_BN, q_NK, latents.half_N)
            blocks.append(_block(latents, halves, plan))
            rng = np.random.default_rng(plan.seed + 1)  # the same shuffles for every block
            shuffles.append([_shuffled(latents, halves, plan, rng) for _ in range(plan.permutations)])
            progress.advance(len(status_BN))
    table = pd.concat(blocks, ignore_index=True)
    table["odds_ratio"] = np.exp(table["beta"])
    table["lower"] = np.exp(table["beta"] - _INTERVAL * table["se"])
    table["upper"] = np.exp(table["beta"] + _INTERVAL * table["se"])
    table["bonferroni"] = np.minimum(1, table["p"] * total)
    table["q"] = multiple.benjamini_hochberg(table["p"].to_numpy())
    table["p_permutation"], table["p_familywise"] = np.nan, np.nan
    shuffled_inflation = np.nan
    if plan.permutations:
        z_DP = np.array([np.concatenate([block[d] for block in shuffles]) for d in range(plan.permutations)])
        own_P = table["z_score"].to_numpy()
        own_P, z_DP = (own_P, z_DP) if plan.both else (np.abs(own_P), np.abs(z_DP))
        above_P = (z_DP >= own_P).sum(axis=0)
        table["p_permutation"] = (1 + above_P) / (1 + plan.permutations)
        table["p_familywise"] = (1 + (z_DP.max(axis=1)[:, None] >= own_P).sum(axis=0)) / (1 + plan.permutations)
        shuffled_inflation = multiple.inflation(_p(z_DP.ravel(), plan.both))
    whole = multiple.inflation(table["p"].to_numpy())
    return Found(table.drop(columns="z_score"), whole, shuffled_inflation, latents.correlation)


def _p(z: np.ndarray, both: bool) -> np.ndarray:
    return crossfit.one_sided(z) if both else 2 * crossfit.one_sided(np.abs(z))


def _combine(z_HB: np.ndarray, latents: crossfit.Latents, both: bool) -> np.ndarray:
    return crossfit.stouffer(z_HB, latents.correlation) if both else z_HB[1]


def _shuffled(latents: crossfit.Latents, halves: crossfit.Halves, plan: Plan, rng: np.random.Generator) -> np.ndarray:
    """z [B] of latents of other people."""
    x_NL = crossfit.shuffled(latents, rng)
    return _combine(crossfit.score_z(latents, halves, x_NL), latents, plan.both)


def _block(latents: crossfit.Latents, halves: crossfit.Halves, plan: Plan) -> pd.DataFrame:
    """Rows of some codes."""
    tested = (0, 1) if plan.both else (1,)
    part = {half: crossfit.components(latents, halves.status_BN, half) for half in (0, 1)}
    u_HB, v_HB = np.array([halves.models[half].score(part[half]) for half in (0, 1)]).transpose(1, 0, 2)
    z_HB = u_HB / np.sqrt(v_HB)
    beta_HB, se_HB = u_HB / v_HB, 1 / np.sqrt(v_HB)
    score_B = _combine(z_HB, latents, plan.both)
    exact = {name: np.full(z_HB.shape, np.nan) for name in (LOGISTIC, FIRTH)}
    final_HB, test_B = z_HB.copy(), np.full(len(score_B), SCORE, object)
    for b in np.flatnonzero(_p(score_B, plan.both) < EXACT_BELOW):
        test_B[b] = LOGISTIC
        for half in tested:
            status_n = halves.status_BN[b, latents.half_N == half]
            known_n = status_n >= 0
            q_nK = _basis(halves.models[half].q_nK[known_n])
            case_n, c_n = status_n[known_n] == 1, part[half][b, known_n]
            effect = logistic.likelihood_ratio(q_nK, case_n, c_n)
            exact[LOGISTIC][half, b] = effect.z
            if case_n.sum() < FEW or not effect.settled:
                test_B[b] = FIRTH
                effect = logistic.firth(q_nK, case_n, c_n)
                exact[FIRTH][half, b] = effect.z
            if np.isfinite(effect.z):
                final_HB[half, b], beta_HB[half, b], se_HB[half, b] = effect.z, effect.beta, effect.se
    weight_HB = np.zeros_like(se_HB)
    weight_HB[list(tested)] = 1 / se_HB[list(tested)] ** 2
    z_B = _combine(final_HB, latents, plan.both)
    found = {
        "z": z_B, "p": _p(z_B, plan.both), "z_score": score_B, "p_score": _p(score_B, plan.both),
        **{f"p_{name}": _p_of(exact[name], final_HB, latents, plan.both) for name in (LOGISTIC, FIRTH)},
        "test": test_B, "beta": (weight_HB * beta_HB).sum(axis=0) / weight_HB.sum(axis=0),
        "se": weight_HB.sum(axis=0) ** -0.5,
    }  # fmt: skip
    return pd.DataFrame(found)


def _p_of(exact_HB: np.ndarray, final_HB: np.ndarray, latents: crossfit.Latents, both: bool) -> np.ndarray:
    """p of one exact test; where only one half has it, the other half's deciding test stands for it. NaN: not done."""
    done_B = np.isfinite(exact_HB if both else exact_HB[1:]).any(axis=0)
    z_HB = np.where(np.isfinite(exact_HB), exact_HB, final_HB)
    return np.where(done_B, _p(_combine(z_HB, latents, both), both), np.nan)


def _basis(q_nK: np.ndarray) -> np.ndarray:
    """Orthonormal columns of what these span, the constant first: of one sex, say, a column of sex is the constant."""
    n = len(q_nK)
    one_n = np.full((n, 1), n**-0.5)
    rest_nK = q_nK - one_n @ (one_n.T @ q_nK)
    u_nK, s_K, _ = np.linalg.svd(rest_nK, full_matrices=False)
    return np.hstack([one_n, u_nK[:, s_K > _SPANNED]])
