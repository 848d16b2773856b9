"""What a head compares: the singular value decomposition of W_K' W_Q (ViT-UDIP, section 3.3).

The score of key token x1 and query token x2, both after the layer's LayerNorm, is x1' W_K' W_Q x2 / sqrt(d) plus a part
of the query's bias, b_Q' W_K x1 / sqrt(d); what depends on x2 alone drops out of the softmax. With W_K' W_Q = U S V'
both are rotated, by U' and V', and compared in d dimensions. Shapes: H heads, T tokens, D width, d channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import entr

from udipdist.models.layers.attention import Attention


@dataclass(frozen=True, eq=False)
class Circuit:
    """One head, float64: W_K' W_Q = U diag(S) V', and what the query's bias adds to every score of a key, D numbers.

    What is told of a head whose weights are all 0 is NaN.
    """

    u_Dd: np.ndarray
    s_d: np.ndarray
    v_Dd: np.ndarray
    bias_D: np.ndarray

    @property
    def effective_rank(self) -> float:
        """exp of the entropy of S^2 as shares: how many dimensions the head compares in (Roy and Vetterli 2007)."""
        return float(np.exp(entr(self._shares).sum()))

    @property
    def first_share(self) -> float:
        """The share of the first dimension in the sum of S^2."""
        return float(self._shares[0])

    @property
    def rotation(self) -> float:
        """The mean cosine of matching columns of U and V, weighted by S^2: 1 where like attends to like, -1 where
        opposites do, about 0 where keys and queries are rotated apart."""
        return float(self._shares @ (self.u_Dd * self.v_Dd).sum(axis=0))

    @property
    def _shares(self) -> np.ndarray:
        total = (self.s_d**2).sum()
        return self.s_d**2 / (total if total > 0 else np.nan)

    def keys(self, x_TD: np.ndarray) -> np.ndarray:
        """Rotated tokens [T, d] as they are looked at: S^1/2 U' x."""
        return x_TD @ self.u_Dd * np.sqrt(self.s_d)

    def queries(self, x_TD: np.ndarray) -> np.ndarray:
        """Rotated tokens [T, d] as they look: S^1/2 V' x. keys @ queries' are the scores without biases."""
        return x_TD @ self.v_Dd * np.sqrt(self.s_d)


def circuits(attention: Attention) -> list[Circuit]:
    """The decomposition of every head of a layer, exact: by QR of both factors, without a D x D decomposition."""
    width, heads = attention.out.out_features, attention.heads
    weight = attention.qkv.weight.detach().double().cpu().numpy().reshape(3, heads, width // heads, width)
    bias = attention.qkv.bias.detach().double().cpu().numpy().reshape(3, heads, width // heads)
    found = []
    for head in range(heads):
        (q_q, r_q), (q_k, r_k) = (np.linalg.qr(weight[which, head].T) for which in (0, 1))
        u, s, vt = np.linalg.svd(r_k @ r_q.T)
        found.append(Circuit(q_k @ u, s, q_q @ vt.T, weight[1, head].T @ bias[0, head]))
    return found


@dataclass(frozen=True)
class Alignment:
    """Mean cosines of the audience's tokens with the spotlights and with the audience itself, before (`plain`) and
    after the head's rotations; NaN where a set is empty. And how well what is computed from the mean tokens alone ranks
    the tokens by the attention they get (Spearman): the rotated cosine, the score without biases, the bias."""

    plain_spotlight: float
    plain_audience: float
    rotated_spotlight: float
    rotated_audience: float
    cosine_received: float
    score_received: float
    bias_received: float


def alignment(
    circuit: Circuit, x_TD: np.ndarray, spotlight_T: np.ndarray, audience_T: np.ndarray, received_T: np.ndarray
) -> Alignment:
    """How the audience looks at the tokens. x_TD: the cohort's mean tokens after the LayerNorm.

    It describes mean tokens: one subject's cosines scatter about these.
    """
    plain, keys, queries = _unit(x_TD), _unit(circuit.keys(x_TD)), _unit(circuit.queries(x_TD))
    looked_T = keys @ queries[audience_T].mean(axis=0) if audience_T.any() else np.full(len(x_TD), np.nan)
    score_T = circuit.keys(x_TD) @ circuit.queries(x_TD[audience_T]).mean(axis=0) if audience_T.any() else looked_T
    return Alignment(
        _mean_cosine(plain, plain, audience_T, spotlight_T),
        _mean_cosine(plain, plain, audience_T, audience_T),
        _mean_cosine(queries, keys, audience_T, spotlight_T),
        _mean_cosine(queries, keys, audience_T, audience_T),
        _rank_correlation(looked_T, received_T),
        _rank_correlation(score_T, received_T),
        _rank_correlation(x_TD @ circuit.bias_D, received_T),
    )


def _unit(x_TD: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(x_TD, axis=1, keepdims=True)
    return np.divide(x_TD, length, out=np.zeros_like(x_TD), where=length > 0)


def _mean_cosine(one: np.ndarray, other: np.ndarray, from_T: np.ndarray, to_T: np.ndarray) -> float:
    """The mean cosine over all ordered pairs of two sets of unit rows, the pairs of a token with itself left out."""
    count = int(from_T.sum()) * int(to_T.sum()) - int((from_T & to_T).sum())
    if count <= 0:
        return float("nan")
    own = (one[from_T & to_T] * other[from_T & to_T]).sum()
    return float((one[from_T].sum(axis=0) @ other[to_T].sum(axis=0) - own) / count)


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    if np.isnan(a).any() or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    from scipy.stats import spearmanr  # scipy.stats takes half a second to import

    return float(spearmanr(a, b).statistic)
