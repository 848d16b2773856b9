"""From the sums over subjects to what is told: spotlights, their stability, symmetry, and the tables.

Shapes: L layers looked at, H heads, T tokens. Tokens that half the subjects or fewer have are `common_T` False; they
are no spotlights, and NaN in what is averaged over subjects.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from udipdist.interpret.attention_maps import MEASURES, Tally
from udipdist.interpret.circuits import Circuit, alignment, circuits
from udipdist.interpret.spotlight import Clustering, agreement, cluster, consistency
from udipdist.interpret.symmetry import Pairs, Symmetry, at_least, symmetry

MOST = 0.9  # of the attention, for `tokens_for_90`


@dataclass(frozen=True, eq=False)
class Seen:
    """What one network's subjects show. `pairs`: mirrored tokens, both common."""

    tally: Tally
    pairs: Pairs

    @cached_property
    def common_T(self) -> np.ndarray:
        """bool [T]: tokens of more than half the subjects."""
        return self.tally.seen.sum(axis=0) > 0.5 * self.tally.subjects

    @cached_property
    def received_LHT(self) -> np.ndarray:
        """Attention that a token gets, in fair shares (1 over the number of tokens), mean over subjects."""
        return self._mean(self.tally.received.sum(axis=0))

    @cached_property
    def correlation_LT(self) -> np.ndarray:
        """A token's mean correlation with the others, mean over subjects."""
        return self._mean(self.tally.correlation.sum(axis=0))

    @cached_property
    def spotlight_LHT(self) -> np.ndarray:
        """bool: the spotlights of each head, of the means over subjects."""
        return self._spotlights(self.correlation_LT, self.received_LHT)

    @cached_property
    def correlation_CC(self) -> np.ndarray:
        """The common tokens' correlations in the drawn layer, mean over the subjects that have both."""
        chosen = np.ix_(self.common_T, self.common_T)
        return self.tally.correlation_TT[chosen] / self.tally.pairs_TT[chosen]

    @cached_property
    def clustering(self) -> Clustering:
        """Of `correlation_CC`."""
        return cluster(self.correlation_CC)

    @cached_property
    def maps_HTT(self) -> np.ndarray:
        """The drawn layer's softmax maps, float32, query x key, mean over the subjects that have both; NaN: none."""
        return self.tally.maps_HTT / np.where(self.tally.pairs_TT, self.tally.pairs_TT, np.nan).astype(np.float32)

    @cached_property
    def rollout_T(self) -> np.ndarray:
        """Attention followed through all layers to the pooled vector, in fair shares."""
        return self._mean(self.tally.rollout_T)

    def half(self, which: int) -> np.ndarray:
        """bool [L, H, T]: the spotlights of every other subject, from number `which`."""
        seen_T = np.where(self.common_T & (self.tally.seen[which] > 0), self.tally.seen[which], np.nan)
        return self._spotlights(self.tally.correlation[which] / seen_T, self.tally.received[which] / seen_T)

    def _mean(self, total: np.ndarray) -> np.ndarray:
        return total / np.where(self.common_T, self.tally.seen.sum(axis=0), np.nan)

    def _spotlights(self, correlation_LT: np.ndarray, received_LHT: np.ndarray) -> np.ndarray:
        rule = self.tally.plan.rule
        return np.stack([rule.spotlights(c, r) for c, r in zip(correlation_LT, received_LHT, strict=True)])


def heads_table(seen: Seen) -> pd.DataFrame:
    """A row a head: sparsity, spotlights, mirrored attention, and what W_K' W_Q compares."""
    tally, plan, rows = seen.tally, seen.tally.plan, []
    mean = tally.measures[0] / tally.subjects
    spread = np.sqrt(np.maximum(tally.measures[1] / tally.subjects - mean**2, 0))
    with np.errstate(invalid="ignore"):
        partner_LHR = tally.partner_LHR / tally.partners_R
    common = seen.common_T
    for place, layer in enumerate(plan.layers):
        found = circuits(tally.stack.blocks[layer].attention)
        audience_T = common & ~seen.spotlight_LHT[place].any(axis=0)
        mean_TD = tally.inputs_LTD[place] / np.maximum(tally.seen.sum(axis=0), 1)[:, None]
        for head, circuit in enumerate(found):
            measured = dict(zip(MEASURES, mean[:, place, head], strict=True))
            received_T, spotlight_T = seen.received_LHT[place, head], seen.spotlight_LHT[place, head]
            to = alignment(circuit, mean_TD[common], spotlight_T[common], audience_T[common], received_T[common])
            rows.append(
                {"layer": layer + 1, "head": head + 1, **measured}
                | {f"{name}_sd": spread[i, place, head] for i, name in enumerate(MEASURES[:4])}
                | {"tokens_for_90": _tokens_for(received_T[common], MOST)}
                | {"spotlights": int(spotlight_T.sum()), "spotlight_share": spotlight_T.sum() / common.sum()}
                | {"attention_to_spotlights": received_T[spotlight_T].sum() / np.nansum(received_T)}
                | _mirror(partner_LHR[place, head])
                | {"effective_rank": circuit.effective_rank, "first_share": circuit.first_share}
                | {"rotation": circuit.rotation}
                | vars(to)
            )
    return pd.DataFrame(rows)


def layers_table(seen: Seen, permutations: int, rng: np.random.Generator) -> pd.DataFrame:
    """A row a layer: the spotlights of any head, how alike tokens are, stability over subjects, symmetry."""
    rows = []
    common, plan, halves = seen.common_T, seen.tally.plan, (seen.half(0), seen.half(1))
    for place, layer in enumerate(plan.layers):
        spotlight_T = seen.spotlight_LHT[place].any(axis=0)
        between = agreement(*(half[place].any(axis=0)[common] for half in halves))
        times_T = seen.tally.times_LT[place]
        left, right = spotlight_T[seen.pairs.left], spotlight_T[seen.pairs.right]
        either = int((left | right).sum())
        rows.append(
            {"layer": layer + 1, "tokens": int(common.sum()), "spotlights": int(spotlight_T.sum())}
            | {"share": spotlight_T.sum() / common.sum()}
            | {"median_correlation": float(np.nanmedian(seen.correlation_LT[place]))}
            | _blocks_of_correlation(seen, layer, spotlight_T)
            | {"halves_jaccard": between.jaccard, "halves_expected": between.expected}
            | {"subjects_overlap": consistency(times_T, seen.tally.subjects)}
            | {"subjects_expected": times_T.sum() / seen.tally.subjects / common.sum()}
            | {"mirror_pairs": len(seen.pairs), "mirror_offset_mm": seen.pairs.offset_mm}
            | {"mirror_jaccard": int((left & right).sum()) / either if either else np.nan}
            | _named("spotlight_symmetry", symmetry(spotlight_T.astype(float), seen.pairs, permutations, rng))
            | _named("received_symmetry", symmetry(_mean_head(seen, place), seen.pairs, permutations, rng))
        )
    return pd.DataFrame(rows)


def tokens_table(seen: Seen, coordinates_T3: np.ndarray, centres_T3: np.ndarray) -> pd.DataFrame:
    """A row a token: its place, mirror image, cluster, correlation, and for each layer what it gets."""
    tally = seen.tally
    mirror_T = np.full(len(centres_T3), -1)
    mirror_T[seen.pairs.left], mirror_T[seen.pairs.right] = seen.pairs.right, seen.pairs.left
    cluster_T = np.zeros(len(centres_T3), int)
    cluster_T[seen.common_T] = seen.clustering.cluster
    columns = {"token": np.arange(len(centres_T3))}
    columns |= {f"grid_{axis}": coordinates_T3[:, i] for i, axis in enumerate("xyz")}
    columns |= {f"mm_{axis}": centres_T3[:, i] for i, axis in enumerate("xyz")}
    columns |= {"subjects": tally.seen.sum(axis=0).astype(int), "mirror": mirror_T, "cluster": cluster_T}
    for place, layer in enumerate(tally.plan.layers):
        end = f"L{layer + 1:02d}"
        columns[f"correlation_{end}"] = seen.correlation_LT[place]
        columns[f"received_{end}"] = _mean_head(seen, place)
        columns[f"received_most_{end}"] = seen.received_LHT[place].max(axis=0)
        columns[f"spotlight_heads_{end}"] = seen.spotlight_LHT[place].sum(axis=0)
        columns[f"spotlight_subjects_{end}"] = tally.times_LT[place] / np.maximum(tally.seen.sum(axis=0), 1)
    if tally.plan.rollout:
        columns["rollout"] = seen.rollout_T
    return pd.DataFrame(columns)


def singular_table(seen: Seen) -> pd.DataFrame:
    """The singular values of W_K' W_Q of every head, a row each, and the cosine of its left and right direction."""

    def of(layer: int, head: int, circuit: Circuit) -> pd.DataFrame:
        rank, cosine = np.arange(1, len(circuit.s_d) + 1), (circuit.u_Dd * circuit.v_Dd).sum(axis=0)
        return pd.DataFrame(
            {"layer": layer + 1, "head": head + 1, "rank": rank, "value": circuit.s_d, "cosine": cosine}
        )

    blocks = seen.tally.stack.blocks
    return pd.concat(
        of(layer, head, circuit)
        for layer in seen.tally.plan.layers
        for head, circuit in enumerate(circuits(blocks[layer].attention))
    )


def seeds_table(named: dict[str, Seen]) -> pd.DataFrame:
    """A row a pair of runs and layer: how far their spotlights agree, of any head, for heads have no order."""
    rows, names = [], list(named)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            a, b = named[one], named[other]
            common = a.common_T & b.common_T
            for place, layer in enumerate(a.tally.plan.layers):
                sets = (run.spotlight_LHT[place].any(axis=0)[common] for run in (a, b))
                received = (_mean_head(run, place)[common] for run in (a, b))
                rows.append(
                    {"run": one, "other": other, "layer": layer + 1, "tokens": int(common.sum())}
                    | vars(agreement(*sets))
                    | {"received_r": float(np.corrcoef(*received)[0, 1])}
                )
    return pd.DataFrame(rows)


def _mean_head(seen: Seen, place: int) -> np.ndarray:
    return seen.received_LHT[place].mean(axis=0)


def _tokens_for(received: np.ndarray, share: float) -> float:
    """The smallest share of the tokens that together get this share of the attention."""
    sums = np.cumsum(np.sort(received)[::-1])
    return float((np.searchsorted(sums, share * sums[-1] * (1 - 1e-12)) + 1) / len(received))


def _mirror(partner_R: np.ndarray) -> dict[str, float]:
    """Attention to the mirror image over that to a random token of the other hemisphere."""
    if np.isnan(partner_R).any() or not len(partner_R):
        return {"mirror_attention": np.nan, "mirror_p": np.nan}
    return {"mirror_attention": partner_R[0] / partner_R[1:].mean(), "mirror_p": at_least(partner_R[0], partner_R[1:])}


def _named(prefix: str, found: Symmetry) -> dict[str, float]:
    return {
        f"{prefix}_r": found.r,
        f"{prefix}_p": found.p,
    }


def _blocks_of_correlation(seen: Seen, layer: int, spotlight_T: np.ndarray) -> dict[str, float]:
    """Mean correlations within the audience, within the spotlights and between them, where they are known: those of a
    layer's own input only for the drawn layer."""
    plan = seen.tally.plan
    names = ("audience_correlation", "spotlight_correlation", "between_correlation", "outside_largest_cluster")
    if plan.by_layer and layer != plan.drawn:
        return dict.fromkeys(names, np.nan)
    r, spot = seen.correlation_CC, spotlight_T[seen.common_T]
    values = [_off_diagonal(r[np.ix_(side, side)]) for side in (~spot, spot)]
    values.append(float(r[np.ix_(~spot, spot)].mean()) if spot.any() and not spot.all() else np.nan)
    values.append(float((seen.clustering.cluster[spot] != 1).mean()) if spot.any() else np.nan)
    return dict(zip(names, values, strict=True))


def _off_diagonal(r: np.ndarray) -> float:
    n = len(r)
    return float((r.sum() - np.trace(r)) / (n * (n - 1))) if n > 1 else float("nan")
