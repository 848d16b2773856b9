"""The inner loops of the test, compiled by numba and free of the interpreter lock.

Shapes: B variants of a block, R places of a packed row, C columns of a matrix. People come as entries of a list, or as
doses: copies of the minor allele (both made of packed rows by genotypes.codes).
"""

from __future__ import annotations

import numpy as np

from hpc.compiled import njit


@njit(nogil=True, cache=True)
def translate(start_b, entry_L, other_R, start_o, entry_o):
    """The entries whose place has a number in `other_R` (>= 0), with that number in place of the place."""
    at = 0
    for b in range(start_b.shape[0] - 1):
        start_o[b] = at
        for i in range(start_b[b], start_b[b + 1]):
            other = other_R[entry_L[i] >> 2]
            entry_o[at] = other << 2 | (entry_L[i] & 3)
            at += other >= 0
    start_o[start_b.shape[0] - 1] = at


@njit(nogil=True, cache=True)
def gather_doses(dose_bR, place_O, out_Ob):
    """Columns `place_O` of int8 rows, transposed."""
    for low in range(0, dose_bR.shape[0], 64):
        high = min(low + 64, dose_bR.shape[0])
        for i in range(place_O.shape[0]):
            place = place_O[i]
            for b in range(low, high):
                out_Ob[i, b] = dose_bR[b, place]


@njit(nogil=True, cache=True)
def multiply_rows(dose_Ob, first_T, second_T, out_Tb):
    """out[t] = dose[first[t]] * dose[second[t]], int8."""
    for t in range(first_T.shape[0]):
        x, y, out = dose_Ob[first_T[t]], dose_Ob[second_T[t]], out_Tb[t]
        for b in range(out.shape[0]):
            out[b] = x[b] * y[b]


@njit(nogil=True, cache=True, fastmath={"contract"})
def add_rows(start_b, entry_L, value_b4, right_RC, rows_at_once, columns_at_once, out_bC):
    """out[b] += sum over the entries of b of value[b, code] * right[place], in float64.

    The rows of `right` are walked in runs that stay in the cache, for all variants, four entries at a time. The order
    of the additions of one variant depends on its own entries only.
    """
    n_b, n_c = out_bC.shape
    cursor = np.empty(n_b, np.int64)
    for left in range(0, n_c, columns_at_once):
        right = min(left + columns_at_once, n_c)
        cursor[:] = start_b[:n_b]
        for low in range(0, right_RC.shape[0], rows_at_once):
            limit = np.int64(low + rows_at_once) << 2
            for b in range(n_b):
                at, stop = cursor[b], start_b[b + 1]
                if at == stop or entry_L[at] >= limit:
                    continue
                out = out_bC[b, left:right]
                value = value_b4[b]
                while at + 4 <= stop and entry_L[at + 3] < limit:
                    e0, e1, e2, e3 = entry_L[at], entry_L[at + 1], entry_L[at + 2], entry_L[at + 3]
                    w0, w1, w2, w3 = value[e0 & 3], value[e1 & 3], value[e2 & 3], value[e3 & 3]
                    y0, y1 = right_RC[e0 >> 2, left:right], right_RC[e1 >> 2, left:right]
                    y2, y3 = right_RC[e2 >> 2, left:right], right_RC[e3 >> 2, left:right]
                    for c in range(right - left):
                        out[c] += (w0 * y0[c] + w1 * y1[c]) + (w2 * y2[c] + w3 * y3[c])
                    at += 4
                while at < stop and entry_L[at] < limit:
                    w0 = value[entry_L[at] & 3]
                    y0 = right_RC[entry_L[at] >> 2, left:right]
                    for c in range(right - left):
                        out[c] += w0 * y0[c]
                    at += 1
                cursor[b] = at


@njit(nogil=True, cache=True, fastmath={"contract"})
def quadratic_lists(start_b, entry_o, value_b4, diagonal_Or, pair_O, partner_T, pair_Tr, out_br):
    """out[b, j] = x' G_j x for sparse x, given as entries: G_j has the diagonal diagonal[:, j] and, above it,
    pair[t, j] / 2 at (i, partner[t]), t from pair[i] to pair[i + 1] - 1."""
    n_r = diagonal_Or.shape[1]
    x_O = np.zeros(diagonal_Or.shape[0])
    for b in range(start_b.shape[0] - 1):
        for at in range(start_b[b], start_b[b + 1]):
            x_O[entry_o[at] >> 2] = value_b4[b, entry_o[at] & 3]
        out = out_br[b]
        out[:] = 0.0
        for at in range(start_b[b], start_b[b + 1]):
            i = entry_o[at] >> 2
            x = x_O[i]
            for j in range(n_r):
                out[j] += x * x * diagonal_Or[i, j]
            for t in range(pair_O[i], pair_O[i + 1]):
                both = x * x_O[partner_T[t]]
                if both != 0.0:
                    for j in range(n_r):
                        out[j] += both * pair_Tr[t, j]
        for at in range(start_b[b], start_b[b + 1]):
            x_O[entry_o[at] >> 2] = 0.0


@njit(nogil=True, cache=True, fastmath={"contract"})
def quadratic_missing(dose_Ob, start_b, entry_o, value_b4, diagonal_Or, mate_O, mate_M, pair_M, pair_Tr, out_br):
    """What missing calls, given as entries, add to x' G_j x of dense x, in which they are 0. The mates of person i are
    mate[m], m from mate_O[i] to mate_O[i + 1] - 1, and G_j has pair[pair_M[m], j] / 2 between them."""
    n_r = diagonal_Or.shape[1]
    listed_O = np.zeros(diagonal_Or.shape[0], np.bool_)
    for b in range(start_b.shape[0] - 1):
        for at in range(start_b[b], start_b[b + 1]):
            listed_O[entry_o[at] >> 2] = True
        for at in range(start_b[b], start_b[b + 1]):
            i, x = entry_o[at] >> 2, value_b4[b, entry_o[at] & 3]
            for j in range(n_r):
                out_br[b, j] += x * x * diagonal_Or[i, j]
            for m in range(mate_O[i], mate_O[i + 1]):
                k = mate_M[m]
                both = x * dose_Ob[k, b]
                if listed_O[k]:
                    both = 0.5 * x * x  # the mate adds the other half
                if both != 0.0:
                    for j in range(n_r):
                        out_br[b, j] += both * pair_Tr[pair_M[m], j]
        for at in range(start_b[b], start_b[b + 1]):
            listed_O[entry_o[at] >> 2] = False


@njit(nogil=True, cache=True)
def spread(start_b, entry_o, value_b4, number_O, out_bL):
    """The entries of the people with a number (>= 0) in `number_O`, written to that column of `out_bL`."""
    for b in range(start_b.shape[0] - 1):
        for at in range(start_b[b], start_b[b + 1]):
            number = number_O[entry_o[at] >> 2]
            if number >= 0:
                out_bL[b, number] = value_b4[b, entry_o[at] & 3]


@njit(nogil=True, cache=True)
def join_digits(part_bX, column_X, weight_X, out_bC):
    """out[b, column[x]] += weight[x] * part[b, x]: whole numbers in float64 from sums of their digits in int32."""
    for b in range(part_bX.shape[0]):
        for x in range(part_bX.shape[1]):
            out_bC[b, column_X[x]] += weight_X[x] * part_bX[b, x]


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def variance_left(u_bK, e_bX, xx_b, g_br, mix_rS, middle_SKK, gls, mix_rD, spread_DS, whole_bD, left_bD):
    """What covariates leave of each variant: whole[b, d] = x'W_d x and left[b, d] = whole minus the part explained.

    W_d = I + sum_j mix[j, d] (G_j), so x'W_d x = xx + g mix, and C'W_d x = u + e mix. The part explained is computed at
    the S nodes and interpolated to all D.
    """
    n_b, n_k = u_bK.shape
    n_r, n_s = mix_rS.shape
    n_d = mix_rD.shape[1]
    v_K, loss_S = np.empty(n_k), np.empty(n_s)
    for b in range(n_b):
        for s in range(n_s):
            for k in range(n_k):
                v_K[k] = u_bK[b, k]
            for j in range(n_r):
                mix = mix_rS[j, s]
                for k in range(n_k):
                    v_K[k] += mix * e_bX[b, j * n_k + k]
            x_K = v_K if gls else u_bK[b]
            form, cross = 0.0, 0.0
            for i in range(n_k):
                row_K = middle_SKK[s, i]
                below = 0.0
                for k in range(i):
                    below += row_K[k] * x_K[k]
                form += x_K[i] * (2.0 * below + row_K[i] * x_K[i])
                cross += x_K[i] * v_K[i]
            loss_S[s] = form if gls else 2.0 * cross - form
        for d in range(n_d):
            whole = xx_b[b]
            for j in range(n_r):
                whole += g_br[b, j] * mix_rD[j, d]
            loss = 0.0
            for s in range(n_s):
                loss += spread_DS[d, s] * loss_S[s]
            whole_bD[b, d] = whole
            left_bD[b, d] = whole - loss
