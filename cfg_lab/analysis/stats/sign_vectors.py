"""Sets of sign vectors for the sign-flip test: vectors of 1 and -1, one sign per prompt.

A test over a set of sign vectors is exact if the set is a group and does not depend on the data (Hemerik &
Goeman 2018, doi:10.1007/s11749-017-0571-1). A group here means: the vector of ones is in the set, and the
product of any two vectors, sign by sign, is in it too. A random sample of sign vectors would be exact only on
average over samples.

Two groups are built for each number of prompts, as binary linear codes:

1. The basic set has 4,096 vectors. With 12 prompts these are all sign vectors. With more prompts the signs of
   12 prompts are free, and the sign of each other prompt is a product of some free signs. In this set any two
   prompts have all four combinations of signs equally often.
2. The enlarged set consists of all products of a basic vector with a multiplier. Multipliers are at most 64
   sign vectors, and the vector of ones is one of them. With up to 19 prompts, the enlarged set contains at
   least one of each sign vector and its opposite (all signs reversed). With more prompts, the enlarged set
   has 262,144 vectors.

With more than 12 prompts, a set never contains both a vector and its opposite. One of them is enough: both
give statistics of the same size, and the test uses only the size.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from cfg_lab.analysis.stats.clustered_means import Floats, Ints

FREE_SIGNS = 12
"""Number of prompts whose signs are free in the basic set. No set exists for fewer prompts."""

BASIC_SIZE = 2**FREE_SIGNS
"""Number of sign vectors in the basic set."""

MAX_MULTIPLIERS = 64
"""Largest ratio between the sizes of the enlarged set and the basic set."""


@lru_cache(maxsize=8)
def basic_signs(prompts: int) -> Floats:
    """The basic set of sign vectors, [BASIC_SIZE, prompts]. The first vector is all ones.

    Args:
        prompts: number of prompts, 12 to 2,058.
    """
    single_bits = 2 ** np.arange(FREE_SIGNS)
    # Every product has an even number of factors. If the signs of the 12 free prompts are all -1, every other
    # sign is therefore 1. So the vector of all -1 is not in the set, and no two vectors are opposite.
    products = np.random.default_rng(prompts).permutation(np.setdiff1d(_even_parity(BASIC_SIZE), [0]))
    return _code_words(BASIC_SIZE, np.concatenate([single_bits, products])[:prompts])


@lru_cache(maxsize=8)
def sign_multipliers(prompts: int) -> Floats:
    """The multipliers, [multipliers, prompts]: sign vectors by which the basic set is multiplied.

    The enlarged set consists of all products of a basic vector with a multiplier. The first multiplier is
    all ones, so the basic set is a subset of the enlarged set. There are at most MAX_MULTIPLIERS multipliers.
    """
    bits = min(int(MAX_MULTIPLIERS).bit_length(), max(prompts - FREE_SIGNS, 1)) - 1
    single_bits = 2 ** np.arange(bits)
    products = np.random.default_rng(prompts).choice(_even_parity(2**bits), prompts)
    generators = np.concatenate([np.zeros(FREE_SIGNS, np.int64), single_bits, products])[:prompts]
    return _code_words(2**bits, generators)


def _even_parity(limit: int) -> Ints:
    """Whole numbers from 0 to `limit` - 1 whose binary form has an even number of ones."""
    numbers = np.arange(limit)
    return numbers[np.bitwise_count(numbers) % 2 == 0]


def _code_words(number: int, generators: Ints) -> Floats:
    """The words 0 to `number` - 1 of a binary linear code as sign vectors, [number, prompts].

    The sign of prompt i in word w is -1 if the bitwise AND of w and generators[i] has an odd number of ones.
    """
    odd = np.bitwise_count(np.arange(number)[:, None] & generators) & 1
    return np.where(odd, -1.0, 1.0)
