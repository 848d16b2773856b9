"""One pass over subjects: every head's softmax map, made a few rows at a time, and what is kept of it.

A map is never held for more than one layer of one subject, nor whole: `_blocks` yields rows of it, at most 2^22 numbers
at once. What is kept are sums over subjects (float64), so memory does not grow with subjects. Only a subject's own
tokens take part, as in the network. Shapes: L layers, H heads, T tokens of the cohort, n of a subject, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hpc.errors import InputError
from hpc.progress import Progress
from udipdist.interpret.network import batches
from udipdist.interpret.spotlight import Rule, mean_correlation, standardised
from udipdist.models.base import Network
from udipdist.models.layers.attention import Attention
from udipdist.models.layers.blocks import Block, Stack
from udipdist.models.layers.pooling import AttentionPool, ClassToken
from udipdist.training.trained import Opened

TOP = 0.1  # share of a subject's tokens that `top_tenth` looks at
MEASURES = ("entropy", "effective_tokens", "top_token", "top_tenth", "uniform_entropy")
_AT_ONCE = 2**22  # numbers of softmax maps


@dataclass(frozen=True, eq=False)
class Plan:
    """What to look at. Layers and heads count from 0 here.

    partners_TR: for each token, R tokens whose attention from it is averaged: its mirror image in the first column,
    random ones of the other hemisphere in the others; -1 for tokens without a mirror image.
    """

    layers: tuple[int, ...]
    rule: Rule
    partners_TR: np.ndarray
    by_layer: bool = False  # correlations of what each layer reads, rather than of the embedded patches
    drawn: int | None = None  # the layer whose mean maps and correlations are kept whole
    heads: tuple[int, ...] = ()  # those whose mean maps are kept
    rollout: bool = False


@dataclass(frozen=True, eq=False)
class TokenSequence:
    """One subject in the encoder. `front`: 1 with a class token, which then is the first of all but `patch_nD`."""

    index_n: np.ndarray  # its tokens among those of the cohort
    patch_nD: Tensor  # embedded patches without position codes
    inputs: list[Tensor]  # [front + n, D] of each layer
    weight_n: Tensor  # [front + n] of the tokens in the pooled vector
    front: int


def encoder(network: Network, run_dir: object = "") -> Stack:
    """The transformer that encodes. Raises InputError for a network that has none."""
    if network.encoder_stack is not None:
        return network.encoder_stack
    raise InputError(f"{run_dir}: its network has no attention to look at; give run_dir= of a model.name=vit_ae")


def sequences(network: Network, prepared: Tensor) -> Iterator[TokenSequence]:
    """What the encoder sees of each prepared subject [B, T, V], and what its layers read: the pass of `encode`."""
    stack, read = encoder(network), network.encoder_input(prepared)
    x_BSD, inputs = read.x_BSD, []
    for block in stack.blocks:
        inputs.append(x_BSD)
        x_BSD = block(x_BSD, read.valid_BS)
    encoded_BSD = stack.norm(x_BSD)
    for b, taken_T in enumerate(read.taken_BT):
        own = slice(None) if read.valid_BS is None else read.valid_BS[b]
        weight = _pooling(read.pool, encoded_BSD[b, own])
        index_n = torch.nonzero(taken_T)[:, 0].cpu().numpy()
        yield TokenSequence(index_n, read.patch_BTD[b, taken_T], [x[b, own] for x in inputs], weight, read.front)


def _pooling(pool: torch.nn.Module | None, encoded_nD: Tensor) -> Tensor:
    """The weights [n] with which tokens enter the pooled vector; of learned attention the mean over its heads."""
    weight_n = encoded_nD.new_zeros(len(encoded_nD))
    if isinstance(pool, ClassToken):
        weight_n[0] = 1
        return weight_n
    if isinstance(pool, AttentionPool):
        return pool.score(encoded_nD).softmax(dim=0).mean(dim=1)
    return weight_n + 1 / len(encoded_nD)


def _blocks(attention: Attention, x_nD: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The softmax maps of a layer, some queries at a time: the first one's number, and [H, r, n]."""
    n, width = x_nD.shape
    q_Hnd, k_Hnd, _ = attention.qkv(x_nD).view(n, 3, attention.heads, width // attention.heads).permute(1, 2, 0, 3)
    step = max(1, _AT_ONCE // (attention.heads * n))
    for start in range(0, n, step):
        score = q_Hnd[:, start : start + step] @ k_Hnd.transpose(1, 2) * q_Hnd.shape[2] ** -0.5
        yield start, score.softmax(dim=2)


class Tally:
    """Sums over subjects. The first axis of `seen`, `correlation` and `received` are two halves of the subjects."""

    def __init__(self, plan: Plan, stack: Stack, tokens: int):
        self.plan, self.stack = plan, stack
        block = stack.blocks[0]
        layers, heads, width = len(plan.layers), block.attention.heads, block.attention.out.out_features
        self.subjects = 0
        self.measures = np.zeros((2, len(MEASURES), layers, heads))  # sums and sums of squares
        self.seen = np.zeros((2, tokens))
        self.received = np.zeros((2, layers, heads, tokens))
        self.correlation = np.zeros((2, layers, tokens))
        self.times_LT = np.zeros((layers, tokens))  # subjects in whose own map the token is a spotlight of any head
        self.inputs_LTD = np.zeros((layers, tokens, width))  # after the LayerNorm, what queries and keys are made of
        self.partner_LHR = np.zeros((layers, heads, plan.partners_TR.shape[1]))
        self.partners_R = np.zeros(plan.partners_TR.shape[1])
        self.rollout_T = np.zeros(tokens)
        drawn = plan.drawn is not None
        self.pairs_TT = np.zeros((tokens, tokens), np.int32) if drawn else None
        self.correlation_TT = np.zeros((tokens, tokens)) if drawn else None
        self.maps_HTT = np.zeros((len(plan.heads), tokens, tokens), np.float32) if drawn else None  # to be looked at

    def add(self, subject: TokenSequence) -> None:
        """Take one subject in."""
        index, half, plan = subject.index_n, self.subjects % 2, self.plan
        self.subjects += 1
        self.seen[half, index] += 1
        z_nD = standardised(subject.patch_nD.double().cpu().numpy())
        rollout_n = subject.weight_n.double()
        for layer in reversed(range(len(self.stack.blocks))):
            place = plan.layers.index(layer) if layer in plan.layers else None
            if place is None and not plan.rollout:
                continue
            x_nD = subject.inputs[layer]
            if plan.by_layer and place is not None:
                z_nD = standardised(x_nD[subject.front :].double().cpu().numpy())
            summary = self._layer(self.stack.blocks[layer], x_nD, rollout_n, layer, subject)
            rollout_n = 0.5 * (rollout_n + summary.rolled_n)  # half of what a block gives on is its input itself
            if place is not None:
                self._keep(place, half, index, z_nD, summary)
            if layer == plan.drawn:
                _add_at(self.correlation_TT, index, z_nD @ z_nD.T)
                _add_at(self.pairs_TT, index, np.int32(1))
        if plan.rollout:
            self.rollout_T[index] += rollout_n[subject.front :].cpu().numpy() * len(rollout_n)

    def _layer(self, block: Block, x_nD: Tensor, weight_n: Tensor, layer: int, subject: TokenSequence) -> _Summary:
        """All heads of one layer of one subject."""
        n, front, heads = len(x_nD), subject.front, block.attention.heads
        normed_nD = block.norm_attention(x_nD)
        measures, received = x_nD.new_zeros(5, heads, dtype=torch.float64), 0.0
        rolled, partner = torch.zeros_like(weight_n), 0.0
        top = max(1, round(TOP * n))
        for start, map_Hrn in _blocks(block.attention, normed_nD):
            entropy_Hr = torch.special.entr(map_Hrn).sum(dim=2)
            high_Hrk = map_Hrn.topk(top, dim=2).values
            rows = (entropy_Hr, entropy_Hr.exp(), high_Hrk[..., 0], high_Hrk.sum(dim=2))
            measures[:4] += torch.stack([row.double().sum(dim=1) / n for row in rows])
            received = received + map_Hrn.double().sum(dim=1)
            weight_r = weight_n[start : start + map_Hrn.shape[1]]
            rolled += weight_r @ map_Hrn.mean(dim=0).double()
            partner = partner + self._partners(map_Hrn, start, subject)
            if layer == self.plan.drawn:
                self._draw(map_Hrn, start, subject)
        measures[4] = np.log(n)
        return _Summary(
            measures.cpu().numpy(),
            received[:, front:].cpu().numpy(),
            rolled,
            normed_nD[front:].double().cpu().numpy(),
            partner,
            n,
        )

    def _partners(self, map_Hrn: Tensor, start: int, subject: TokenSequence) -> np.ndarray:
        """Attention of these queries to their partners, in fair shares, summed: [H, R]; in a last row how many."""
        place_T = np.full(len(self.plan.partners_TR) + 1, -1)  # the last stands for no partner
        place_T[subject.index_n] = np.arange(len(subject.index_n)) + subject.front
        brain = np.arange(start, start + map_Hrn.shape[1]) - subject.front
        kept = np.flatnonzero(brain >= 0)
        keys_rR = place_T[self.plan.partners_TR[subject.index_n[brain[kept]]]]
        there = torch.from_numpy(keys_rR >= 0).to(map_Hrn.device)
        keys = torch.from_numpy(keys_rR).to(map_Hrn.device).clamp_min(0)
        looked_HrR = map_Hrn[:, kept].gather(2, keys.expand(len(map_Hrn), -1, -1)) * there
        sums = torch.cat([looked_HrR.double().sum(dim=1) * map_Hrn.shape[2], there.double().sum(dim=0)[None]])
        return sums.cpu().numpy()

    def _draw(self, map_Hrn: Tensor, start: int, subject: TokenSequence) -> None:
        front, maps = subject.front, map_Hrn[list(self.plan.heads)].cpu().numpy()
        rows = np.arange(start, start + maps.shape[1]) - front
        maps, queries = maps[:, rows >= 0, front:], subject.index_n[rows[rows >= 0]]
        for head, block in enumerate(maps):
            self.maps_HTT[head][np.ix_(queries, subject.index_n)] += block

    def _keep(self, place: int, half: int, index: np.ndarray, z_nD: np.ndarray, of: _Summary) -> None:
        correlation_n = mean_correlation(z_nD)
        self.measures[:, :, place] += np.stack([of.measures, of.measures**2])
        self.received[half, place][:, index] += of.received_Hn
        self.correlation[half, place, index] += correlation_n
        self.inputs_LTD[place, index] += of.normed_nD
        self.times_LT[place, index] += self.plan.rule.spotlights(correlation_n, of.received_Hn).any(axis=0)
        self.partner_LHR[place] += of.partner[:-1]
        if place == 0:
            self.partners_R += of.partner[-1]


@dataclass(frozen=True, eq=False)
class _Summary:
    """One layer of one subject: measures [5, H], received attention in fair shares [H, n], and the rest of `_layer`."""

    measures: np.ndarray
    received_Hn: np.ndarray
    rolled_n: Tensor
    normed_nD: np.ndarray
    partner: np.ndarray
    n: int


def look(opened: Opened, rows: Sequence[int] | np.ndarray, plan: Plan, batch: int, label: str = "attention") -> Tally:
    """The sums over these rows of the store. Raises InputError that names a subject without brain."""
    stack = encoder(opened.network)
    tally = Tally(plan, stack, opened.network.patcher.tokens)
    with torch.no_grad(), Progress(label, len(rows), "subjects") as progress:
        for part, prepared in batches(opened, np.asarray(rows), batch):
            for subject in sequences(opened.network, prepared):
                tally.add(subject)
            progress.advance(len(part))
    return tally


def _add_at(total_TT: np.ndarray, index: np.ndarray, values) -> None:
    """total[index, index] += values, without fancy indexing where all are there."""
    if len(index) == len(total_TT):
        total_TT += values
    else:
        total_TT[np.ix_(index, index)] += values
