"""Packed rows of genotypes: two bits a call, counted and decoded by loops that numba compiles.

What the two bits mean is said here and nowhere else; `ones` is the one population count.

Shapes: B variants of a block, Q bytes of a packed row, N people of the file, n people analysed, L entries of a list. A
packed row holds four people a byte, the first in the lowest two bits (PLINK 1 .bed, variant-major): 00 two copies of
A1, 01 missing, 10 one copy, 11 none.

Everything below the counts works with copies of the minor allele. A variant is `flipped` where A1 is the major one.
A row is turned so that 00 is the homozygote of the major allele: its bytes are inverted unless it is flipped. Then 11
are two copies, and 01 | 10 are one copy | missing, or missing | one copy where it is flipped. `keep_Q` has 11 for
people who are analysed; the others are made major homozygotes, which add nothing to any sum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
from numba import types
from numba.extending import intrinsic

from hpc.compiled import njit

PER_WORD = 32  # calls
MISSING = -1
_COPIES_OF_A1 = np.array([2, MISSING, 1, 0], dtype=np.int8)

MOST_PEOPLE = 2**29  # whose place and code fit into 31 bits
LOW = np.uint64(0x5555555555555555)  # the lower bit of each call of a word; as a word itself 32 missing calls
_ONE, _THREE = np.uint64(1), np.uint64(3)
_MULTIPLIER = np.uint64(0x03F79D71B4CB0A89)  # a de Bruijn sequence: its top six bits tell the shifts apart
_BIT = np.zeros(64, np.int64)
_BIT[[(0x03F79D71B4CB0A89 << i & 2**64 - 1) >> 58 for i in range(64)]] = np.arange(64)
_CODES = (np.arange(256)[:, None] >> np.array([0, 2, 4, 6])) & 3  # the four codes of a byte


def byte_table(value_4: np.ndarray) -> np.ndarray:
    """The values of one byte each that the four codes stand for, of the four calls of each byte as one word: uint32
    [256]."""
    return np.asarray(value_4)[_CODES].copy().view(np.uint32)[:, 0]


# Copies of the minor allele of the four people of a turned byte; missing is 0.
_DOSES = np.stack([byte_table(np.array(copies, np.uint8)) for copies in ([0, 1, 0, 2], [0, 0, 1, 2])])


def two_bits(flag_N: np.ndarray) -> np.ndarray:
    """11 for people with a true flag, 00 for others, four people a byte as in a .bed: uint8 [ceil(N / 4)]."""
    bits = np.repeat(np.asarray(flag_N, bool), 2)
    return np.packbits(bits, bitorder="little")


def keep_bytes(place_N: np.ndarray) -> np.ndarray:
    """`keep_Q`: bytes with 11 at the places of the people analysed, up to the last of them."""
    flag_N = np.zeros(int(place_N.max(initial=-1)) + 1, bool)
    flag_N[place_N] = True
    return two_bits(flag_N)


@njit(nogil=True, cache=True, inline="always")
def _words(row_Q, word_W):
    """The bytes of a row as words; what is left over is filled up with zeros."""
    whole = row_Q.shape[0] // 8
    word_W[:whole] = row_Q[: 8 * whole].view(np.uint64)
    if whole < word_W.shape[0]:
        last = np.uint64(0)
        for i in range(8 * whole, row_Q.shape[0]):
            last |= np.uint64(row_Q[i]) << np.uint64(8 * (i - 8 * whole))
        word_W[whole] = last


def _ones(typing_context, word):
    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


# Number of bits that are set in a 64-bit word: the processor's own count, int64. For compiled loops.
ones = cast("Callable[[np.uint64], int]", intrinsic(_ones))


@njit(nogil=True, cache=True)
def planes(word):
    """Of each call of a word one low bit: is it homozygous, is it heterozygous, is it called; and the lower bit of its
    code, which tells homozygotes apart."""
    low = word & LOW
    high = (word >> _ONE) & LOW
    return ~(low ^ high) & LOW, high & ~low, ~low & LOW | high, low


@njit(nogil=True, cache=True)
def count_ones(word_W):
    """Number of bits that are set in some words."""
    total = 0
    for word in word_W:
        total += ones(word)
    return total


@njit(nogil=True, cache=True)
def decode_rows(packed_BQ, person_n, out_Bn):
    """Copies of A1 of the people `person_n` (0-based in the file), -1 where missing, into int8 `out_Bn`."""
    for row in range(packed_BQ.shape[0]):
        for i in range(person_n.shape[0]):
            person = person_n[i]
            out_Bn[row, i] = _COPIES_OF_A1[(packed_BQ[row, person >> 2] >> (2 * (person & 3))) & 3]


@njit(nogil=True, cache=True)
def gather_rows(packed_BN, person_n, out_BQ):
    """Packed rows of the people `person_n` alone, four a byte in that order; places left over are 0."""
    n = person_n.shape[0]
    for row in range(packed_BN.shape[0]):
        for q in range(out_BQ.shape[1]):
            byte = 0
            for i in range(4 * q, min(4 * q + 4, n)):
                person = person_n[i]
                byte |= ((packed_BN[row, person >> 2] >> (2 * (person & 3))) & 3) << (2 * (i & 3))
            out_BQ[row, q] = byte


@njit(nogil=True, cache=True)
def count_codes(packed_BQ, keep_Q, n, out_B4):
    """Number of people with two copies of A1, missing, one copy and none (the order of the codes) among the n kept."""
    n_words = (keep_Q.shape[0] + 7) // 8
    keep_W, word_W = np.empty(n_words, np.uint64), np.empty(n_words, np.uint64)
    _words(keep_Q, keep_W)
    for row in range(packed_BQ.shape[0]):
        _words(packed_BQ[row, : keep_Q.shape[0]], word_W)
        missing, het, hom2 = 0, 0, 0
        for w in range(n_words):
            low, high, keep = word_W[w], word_W[w] >> _ONE, keep_W[w] & LOW
            missing += ones(low & ~high & keep)
            het += ones(high & ~low & keep)
            hom2 += ones(high & low & keep)
        out_B4[row, 1] = missing
        out_B4[row, 2] = het
        out_B4[row, 3] = hom2
        out_B4[row, 0] = n - out_B4[row, 1] - out_B4[row, 2] - out_B4[row, 3]


@njit(nogil=True, cache=True)
def list_people(packed_BQ, row_b, flipped_b, keep_Q, missing_b, only_missing, start_b, entry_L):
    """All people of the rows `row_b` who are not homozygous for the major allele, as `place << 2 | code` of the turned
    row, one row after the other, into `entry_L`; row b begins at start_b[b]. Or those with missing calls only, of
    whom there are missing_b."""
    n_words = (keep_Q.shape[0] + 7) // 8
    keep_W, word_W = np.empty(n_words, np.uint64), np.empty(n_words, np.uint64)
    _words(keep_Q, keep_W)
    at = 0
    for b in range(row_b.shape[0]):
        start_b[b] = at
        if only_missing and missing_b[b] == 0:
            continue
        _words(packed_BQ[row_b[b], : keep_Q.shape[0]], word_W)
        turn = np.uint64(0) if flipped_b[b] else ~np.uint64(0)
        for w in range(n_words):
            word = (word_W[w] ^ turn) & keep_W[w]
            left = (word | (word >> _ONE)) & LOW
            if only_missing:
                left &= word_W[w] & ~(word_W[w] >> _ONE)
            while left:
                lowest = left & (~left + _ONE)
                bit = _BIT[(lowest * _MULTIPLIER) >> np.uint64(58)]
                code = np.int64((word >> np.uint64(bit)) & _THREE)
                entry_L[at] = (w << 7) + (bit << 1) + code
                at += 1
                left ^= lowest
    start_b[row_b.shape[0]] = at


@njit(nogil=True, cache=True)
def decode_doses(packed_BQ, row_b, flipped_b, keep_Q, out_bQ):
    """Copies of the minor allele of the rows `row_b`, missing = 0, four people a word: uint32 views of int8 rows."""
    for b in range(row_b.shape[0]):
        row = row_b[b]
        flipped = 1 if flipped_b[b] else 0
        turn = np.uint8(0) if flipped_b[b] else np.uint8(255)
        for q in range(keep_Q.shape[0]):
            out_bQ[b, q] = _DOSES[flipped, (packed_BQ[row, q] ^ turn) & keep_Q[q]]


@njit(nogil=True, cache=True)
def mask_hets(packed_BQ, flag_Q, out_BQ, masked_B):
    """The rows with heterozygous calls (10) missing (01) where `flag_Q` has 11, and how many they were in each row."""
    for row in range(packed_BQ.shape[0]):
        masked = 0
        for q in range(packed_BQ.shape[1]):
            byte = packed_BQ[row, q]
            het = (byte >> 1) & ~byte & flag_Q[q] & 0x55  # the low bit of each flagged call with high bit 1, low bit 0
            out_BQ[row, q] = byte ^ (het | het << 1)
            masked += (het & 1) + (het >> 2 & 1) + (het >> 4 & 1) + (het >> 6 & 1)
        masked_B[row] = masked


@njit(nogil=True, cache=True)
def transpose(packed_BQ, n, out_Nw):
    """Person-major words of B variants (packed rows of n people), 32 variants a word, the first in the lowest two bits;
    B is at most 32 w, and places beyond the last variant are missing."""
    for w in range(out_Nw.shape[1]):
        first = w * PER_WORD
        count = min(PER_WORD, packed_BQ.shape[0] - first)
        for person in range(n):
            shift = 2 * (person & 3)
            word = LOW
            for i in range(count):
                code = np.uint64((packed_BQ[first + i, person >> 2] >> shift) & 3)
                word ^= (code ^ _ONE) << np.uint64(2 * i)
            out_Nw[person, w] = word
