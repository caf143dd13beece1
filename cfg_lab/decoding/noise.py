"""The noise of the choice of a token: a hash instead of a random number generator.

The Gumbel noise of a token is a hash of (seed, positive context, sample, position, token). So batching, the
order of requests and resuming do not change the noise, and no generator state has to be stored.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def gumbel(keys: Tensor, tokens: Tensor) -> Tensor:
    """Standard Gumbel noise as a hash of key and token.

    argmax(log_probs + noise) is a draw from the distribution (the Gumbel-max trick). This also holds for a
    truncated distribution, where some log-probs are -inf.

    Args:
        keys: [rows], int64, the noise key of each row (see `position_keys`).
        tokens: [rows, n] or [n], int64, the ids of the tokens that get noise.

    Returns:
        Noise [rows, n], float32.
    """
    bits = _mix(keys[:, None] + tokens * _GOLDEN)
    uniform = (_logical_shift(bits, 11).double() + 0.5) * 2.0**-53  # in (0, 1), without its ends
    return -(-uniform.log()).log().float()


def position_keys(keys: Tensor, positions: Tensor) -> Tensor:
    """One noise key per row, [rows], int64: a hash of the request's noise key and the token's position."""
    return _mix(keys + (positions + 1) * _GOLDEN)


# splitmix64 (Steele, Lea and Flood 2014), in int64 arithmetic that wraps around.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)


def _mix(x: Tensor) -> Tensor:
    """Mix the bits of x: every bit of the input changes about half of the bits of the output.

    This is the finalizer of splitmix64.
    """
    x = (x ^ _logical_shift(x, 30)) * _FIRST
    x = (x ^ _logical_shift(x, 27)) * _SECOND
    return x ^ _logical_shift(x, 31)


def _logical_shift(x: Tensor, bits: int) -> Tensor:
    """Right shift that fills the free bits with zeros. The shift of torch fills them with the sign bit."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


class FastNoise:
    """Lower bounds of the noise of many tokens, for one row after another, on a CPU.

    They cost an eighth of `gumbel`: there is no logarithm, NumPy has a shift that fills the free bits with
    zeros, and the memory is reused. Fresh memory for every row would cost more than the arithmetic.

    Args:
        vocab: number of tokens.
    """

    def __init__(self, vocab: int) -> None:
        self._offsets = np.arange(vocab, dtype=np.uint64) * np.uint64(_GOLDEN % (1 << 64))
        self._bits, self._shifted = np.empty((2, vocab), np.uint64)
        self._complements = np.empty(vocab, np.float32)

    def least_complements(self, key: int, tokens: NDArray[np.intp] | None) -> NDArray[np.float32]:
        """A lower bound of 1 - u for each token, where u is the uniform number of `gumbel` = -log(-log(u)).

        Args:
            key: the noise key of a row.
            tokens: [n], the ids of the tokens; None stands for all tokens in order.

        Returns:
            [n], in units of 2 ** -32, valid until the next call. The true 1 - u is at most 6 units and 1 part
            in 2 ** 23 larger. A bound can be negative.
        """
        offsets = self._offsets if tokens is None else self._offsets[tokens]
        n = len(offsets)
        bits, shifted, complements = self._bits[:n], self._shifted[:n], self._complements[:n]
        np.add(offsets, np.uint64(key % (1 << 64)), out=bits)
        bits ^= np.right_shift(bits, np.uint64(30), out=shifted)
        bits *= np.uint64(_FIRST % (1 << 64))
        bits ^= np.right_shift(bits, np.uint64(27), out=shifted)
        bits *= np.uint64(_SECOND % (1 << 64))
        # The last step of `_mix` changes only the lower 33 bits.
        upper = np.right_shift(bits, np.uint64(32), out=shifted).view(np.int64)
        complements[:] = np.subtract(2**32 - 4, upper, out=upper)
        return complements
