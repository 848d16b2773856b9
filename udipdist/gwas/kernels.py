"""The inner loops over packed genotypes, compiled by numba and free of the interpreter lock.

Shapes: B variants of a block, N people of the file, n people analysed. A packed row holds four people a byte, the
first in the lowest two bits (PLINK 1 .bed, variant-major): 00 two copies of A1, 01 missing, 10 one copy, 11 none.
"""

from __future__ import annotations

import numba
import numpy as np

MISSING = -1
CENTRE_STEP = 2.0**-20  # counts minus a multiple of it need 22 bits, float32 has 24
_COPIES_OF_A1 = np.array([2, MISSING, 1, 0], dtype=np.int8)


@numba.njit(nogil=True, cache=True)
def decode_rows(packed_BQ, person_n, out_Bn):
    """Copies of A1 of the people `person_n` (0-based in the file), -1 where missing, into int8 `out_Bn`."""
    for row in range(packed_BQ.shape[0]):
        for i in range(person_n.shape[0]):
            person = person_n[i]
            out_Bn[row, i] = _COPIES_OF_A1[(packed_BQ[row, person >> 2] >> (2 * (person & 3))) & 3]


@numba.njit(nogil=True, cache=True)
def count_rows(packed_BQ, person_n, called_B, copies_B):
    """Number of called people and their copies of A1 among `person_n`, for each row."""
    for row in range(packed_BQ.shape[0]):
        seen = np.zeros(4, np.int64)
        for i in range(person_n.shape[0]):
            person = person_n[i]
            seen[(packed_BQ[row, person >> 2] >> (2 * (person & 3))) & 3] += 1
        called_B[row] = seen[0] + seen[2] + seen[3]
        copies_B[row] = 2 * seen[0] + seen[2]


@numba.njit(nogil=True, cache=True)
def centre_rows(packed_BQ, person_n, out_Bn, called_B, copies_B):
    """Copies of A1 minus a centre, missing = mean, into float32 `out_Bn`; also the two counts of `count_rows`.

    The mean is over the called people of `person_n`; the centre is the mean to six digits (a multiple of CENTRE_STEP),
    so that every called value is exact in float32: the rest, the same for everybody, is taken out with the
    intercept. A row without calls becomes zeros.
    """
    n = person_n.shape[0]
    code_n = np.empty(n, np.uint8)
    value = np.zeros(4, np.float32)
    for row in range(packed_BQ.shape[0]):
        seen = np.zeros(4, np.int64)
        for i in range(n):
            person = person_n[i]
            code = (packed_BQ[row, person >> 2] >> (2 * (person & 3))) & 3
            code_n[i] = code
            seen[code] += 1
        called = seen[0] + seen[2] + seen[3]
        copies = 2 * seen[0] + seen[2]
        called_B[row] = called
        copies_B[row] = copies
        mean = copies / called if called > 0 else 0.0
        centre = np.rint(mean / CENTRE_STEP) * CENTRE_STEP
        value[0] = 2 - centre
        value[1] = mean - centre
        value[2] = 1 - centre
        value[3] = 0 - centre
        for i in range(n):
            out_Bn[row, i] = value[code_n[i]]


@numba.njit(nogil=True, cache=True)
def square_rotated(x_Bn, n_single, start_F, size_F, offset_F, u):
    """x -> (U'x)^2 in place for each row, U block-diagonal: `n_single` people without relatives, then families.

    Family f holds the people start_F[f] .. start_F[f] + size_F[f] - 1; its matrix (size x size, row-major) begins at
    u[offset_F[f]]. Sums are in float64.
    """
    largest = 0
    for f in range(size_F.shape[0]):
        largest = max(largest, size_F[f])
    rotated = np.empty(largest, np.float64)
    for row in range(x_Bn.shape[0]):
        for i in range(n_single):
            x_Bn[row, i] *= x_Bn[row, i]
        for f in range(start_F.shape[0]):
            start, size, offset = start_F[f], size_F[f], offset_F[f]
            rotated[:size] = 0.0
            for i in range(size):
                x = np.float64(x_Bn[row, start + i])
                for j in range(size):
                    rotated[j] += x * u[offset + i * size + j]
            for j in range(size):
                x_Bn[row, start + j] = rotated[j] * rotated[j]
