"""Predictions of targets from columns, each person's by models that saw neither the person nor the family.

Ridge regression for measurements (its penalty by generalised cross-validation, all targets at once), logistic
regression for yes and no (its penalty by an inner fold). scikit-learn fits. Shapes: N people, P targets, C columns.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import special

ALPHAS = np.logspace(-2, 6, 17)  # of the ridge
STRENGTHS = np.logspace(-4, 0, 5)  # of the logistic model: inverse penalties
MOST_STEPS = 200  # of the logistic model; what has not settled then predicts honestly, and is counted
Penalty = Literal["l2", "elasticnet"]
Part = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of P targets, [N, P] each: by models of all other folds, of two halves of those, and `base_NP`, the
    means of the other folds (measurements only). `unfinished`: models whose fit had not settled when it was ended."""

    whole_NP: np.ndarray
    halves_NP: tuple[np.ndarray, np.ndarray]
    base_NP: np.ndarray
    unfinished: int = 0


def continuous(x_NC: np.ndarray, y_NP: np.ndarray, fold_N: np.ndarray) -> OutOfFold:
    """Ridge regression of P targets without missing values."""
    from sklearn.linear_model import RidgeCV

    whole_NP, first_NP, second_NP, base_NP = (np.empty_like(y_NP) for _ in range(4))
    for held_N, parts in _splits(x_NC, fold_N):
        base_NP[held_N] = y_NP[~held_N].mean(0)
        for into_NP, (train_N, train_NC, test_NC) in zip((whole_NP, first_NP, second_NP), parts, strict=True):
            if not x_NC.shape[1]:
                into_NP[held_N] = y_NP[train_N].mean(0)
                continue
            ridge = RidgeCV(alphas=ALPHAS, alpha_per_target=True).fit(train_NC, y_NP[train_N])
            into_NP[held_N] = ridge.predict(test_NC).reshape(-1, y_NP.shape[1])
    return OutOfFold(whole_NP, (first_NP, second_NP), base_NP)


def binary(x_NC: np.ndarray, case_N: np.ndarray, fold_N: np.ndarray, penalty: Penalty, seed: int) -> OutOfFold:
    """Logistic regression of one target: margins [N, 1] in units of those of the training people; 0 without columns."""
    unfinished = 0
    margins = tuple(np.zeros((len(case_N), 1)) for _ in range(3))
    if x_NC.shape[1]:
        for k, (held_N, parts) in enumerate(_splits(x_NC, fold_N)):
            strength = None
            for into_N1, (train_N, train_NC, test_NC) in zip(margins, parts, strict=True):
                case_n = case_N[train_N]
                if strength is None:
                    inner_n = fold_N[train_N] == (k + 1) % (fold_N.max() + 1)
                    strength = _strength(train_NC, case_n, inner_n, penalty, seed)
                if len(np.unique(case_n)) < 2:
                    continue
                model = _logistic(train_NC, case_n, strength, penalty, seed)
                unfinished += int(model.n_iter_.max() >= MOST_STEPS)
                own_n = model.decision_function(train_NC)
                spread = own_n.std()
                found_n = (model.decision_function(test_NC) - own_n.mean()) / (spread if spread > 1e-12 else 1.0)
                into_N1[held_N, 0] = found_n
    return OutOfFold(margins[0], (margins[1], margins[2]), np.zeros_like(margins[0]), unfinished)


def _splits(x_NC: np.ndarray, fold_N: np.ndarray) -> Iterator[tuple[np.ndarray, list[Part]]]:
    """For each fold who is held out; and for all others, and for two halves of the other folds: who they are, and the
    columns of these and of the held out, in units of the SD of these."""
    n = int(fold_N.max()) + 1
    for k in range(n):
        held_N, parts = fold_N == k, []
        others = [(k + i) % n for i in range(1, n)]
        for chosen in (others, others[: len(others) // 2], others[len(others) // 2 :]):
            train_N = np.isin(fold_N, chosen)
            mean_C, sd_C = x_NC[train_N].mean(0), x_NC[train_N].std(0)
            unit_C = np.where(sd_C > 0, sd_C, 1)
            parts.append((train_N, (x_NC[train_N] - mean_C) / unit_C, (x_NC[held_N] - mean_C) / unit_C))
        yield held_N, parts


def _strength(x_nC: np.ndarray, case_n: np.ndarray, inner_n: np.ndarray, penalty: Penalty, seed: int) -> float:
    """The inverse penalty whose model predicts the inner fold best; the strongest penalty where that has one kind."""
    if len(np.unique(case_n[inner_n])) < 2 or len(np.unique(case_n[~inner_n])) < 2:
        return float(STRENGTHS[0])
    losses = []
    for strength in STRENGTHS.tolist():
        margin_n = _logistic(x_nC[~inner_n], case_n[~inner_n], strength, penalty, seed).decision_function(x_nC[inner_n])
        losses.append(-special.log_expit(np.where(case_n[inner_n], margin_n, -margin_n)).mean())
    return float(STRENGTHS[int(np.argmin(losses))])


def _logistic(x_nC: np.ndarray, case_n: np.ndarray, strength: float, penalty: Penalty, seed: int) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    elastic = penalty == "elasticnet"
    model = LogisticRegression(
        C=strength, l1_ratio=0.5 if elastic else 0.0, solver="saga" if elastic else "lbfgs", max_iter=MOST_STEPS,
        tol=1e-4, random_state=seed,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # counted by n_iter_ where the model is used
        return model.fit(x_nC, case_n)
