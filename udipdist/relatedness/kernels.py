"""The inner loops over pairs of people, compiled by numba and free of the interpreter lock.

Genotypes of one person are a row of 64-bit words, 32 variants a word, the first in the lowest two bits
(genotypes.codes.transpose). Shapes: N people, W words, V = 32 W places of variants,
I and J people of two tiles, L pairs. Places beyond the last variant are missing, so they never count.
"""

from __future__ import annotations

import numpy as np

from hpc.compiled import njit
from udipdist.genotypes.codes import PER_WORD, ones, planes


@njit(nogil=True, cache=True)
def count_people(words_NW, out_N2):
    """Homozygous and heterozygous calls of each person."""
    for person in range(words_NW.shape[0]):
        hom_count, het_count = 0, 0
        for word in words_NW[person]:
            hom, het, _, _ = planes(word)
            hom_count += ones(hom)
            het_count += ones(het)
        out_N2[person, 0] = hom_count
        out_N2[person, 1] = het_count


@njit(nogil=True, cache=True)
def count_pairs(words_IW, words_JW, i_L, j_L, out_L5):
    """Variants at which both of a pair are called, opposite homozygotes, both heterozygous, only i heterozygous,
    only j heterozygous (the other called)."""
    for pair in range(i_L.shape[0]):
        both, ibs0, het_het, het_i, het_j = 0, 0, 0, 0, 0
        row_i, row_j = words_IW[i_L[pair]], words_JW[j_L[pair]]
        for w in range(row_i.shape[0]):
            hom1, het1, called1, kind1 = planes(row_i[w])
            hom2, het2, called2, kind2 = planes(row_j[w])
            both += ones(called1 & called2)
            ibs0 += ones(hom1 & hom2 & (kind1 ^ kind2))
            het_het += ones(het1 & het2)
            het_i += ones(het1 & hom2)
            het_j += ones(hom1 & het2)
        out_L5[pair, 0] = both
        out_L5[pair, 1] = ibs0
        out_L5[pair, 2] = het_het
        out_L5[pair, 3] = het_i
        out_L5[pair, 4] = het_j


@njit(nogil=True, cache=True)
def multiply_pairs(words_IW, words_JW, i_L, j_L, z_V4, total_L, both_L):
    """Sum over the variants called in both of z_i z_j, in float64, and how many those are. `z_V4` is the standardised
    genotype of each code; those of missing and of places beyond the last variant are 0."""
    for pair in range(i_L.shape[0]):
        total, both = 0.0, 0
        row_i, row_j = words_IW[i_L[pair]], words_JW[j_L[pair]]
        for w in range(row_i.shape[0]):
            word_i, word_j = row_i[w], row_j[w]
            both += ones(planes(word_i)[2] & planes(word_j)[2])
            for place in range(w * PER_WORD, (w + 1) * PER_WORD):
                total += z_V4[place, word_i & np.uint64(3)] * z_V4[place, word_j & np.uint64(3)]
                word_i >>= np.uint64(2)
                word_j >>= np.uint64(2)
        total_L[pair] = total
        both_L[pair] = both


@njit(nogil=True, cache=True)
def standardise(words_IW, z_V4, out_IV):
    """Standardised genotypes [I, V] (float32) of some people."""
    for person in range(words_IW.shape[0]):
        for w in range(words_IW.shape[1]):
            word = words_IW[person, w]
            for place in range(w * PER_WORD, (w + 1) * PER_WORD):
                out_IV[person, place] = z_V4[place, word & np.uint64(3)]
                word >>= np.uint64(2)


@njit(nogil=True, cache=True)
def screen_king(product_IJ, hom_I, het_I, missing_I, hom_J, het_J, missing_J, most, same_tile, row, i_L, j_L):
    """Pairs whose KING-robust kinship may reach (1 - most / 2) / 2, from row `row` on while they fit into i_L, j_L.
    Returns their number and the row to go on with.

    With D = sum (x_i - x_j)^2 over the variants called in both and h the smaller number of heterozygotes there, the
    kinship is 1/2 - D / 4h, and D = hom_i + hom_j - 2 sum s_i s_j, s = +1 and -1 for the homozygotes, 0 otherwise. The
    counts hom are over the other's calls: at most the other's missing calls less than over all. So D has a lower bound
    and h an upper one, and no pair is lost.
    """
    found, n_j = 0, product_IJ.shape[1]
    while row < product_IJ.shape[0] and found + n_j <= i_L.shape[0]:
        for j in range(row if same_tile else n_j):
            least = max(0, hom_I[row] - missing_J[j]) + max(0, hom_J[j] - missing_I[row]) - 2 * product_IJ[row, j]
            if max(0, least) <= most * min(het_I[row], het_J[j]):
                i_L[found], j_L[found] = row, j
                found += 1
        row += 1
    return found, row


@njit(nogil=True, cache=True)
def screen_gcta(product_IJ, norm_I, missing_I, norm_J, missing_J, m, error, cutoff, same_tile, row, i_L, j_L):
    """Pairs whose GCTA relatedness may reach `cutoff`, as `screen_king`. `error` bounds the rounding of the product
    relative to the norms of the two rows, and m less the missing calls of both is the least number called in both."""
    found, n_j = 0, product_IJ.shape[1]
    while row < product_IJ.shape[0] and found + n_j <= i_L.shape[0]:
        for j in range(row if same_tile else n_j):
            largest = product_IJ[row, j] + error * norm_I[row] * norm_J[j]
            least_called = max(1, m - missing_I[row] - missing_J[j])
            if largest >= cutoff * least_called:
                i_L[found], j_L[found] = row, j
                found += 1
        row += 1
    return found, row
