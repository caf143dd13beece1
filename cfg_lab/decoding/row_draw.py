"""Drawing tokens on a CPU in a few passes over the vocabulary, whatever the entropy.

Nothing is sorted, and the threshold of top-p is not searched for:

1. Of all tokens, the one with the largest noisy score is drawn.
2. If it survives the truncation, it also has the largest noisy score of all survivors, and is returned. It
   survives top-p if the total probability of the tokens before it is below top_p.
3. If not, every survivor is before it. Step 1 is repeated with the tokens before it.

"Before" means: the likelier token first, and of equally likely tokens the one with the lower id. The result
is the same as if the truncation came first. Repeats are few, because a token that is drawn survives with
a probability of at least top_p.

NumPy is used, because with one thread it is several times faster than torch at finding the largest of many
numbers, comparing them and shifting bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cfg_lab.decoding.noise import FastNoise, gumbel
from cfg_lab.guidance.log_probs import FLOOR

_LEAST = np.float32(-80)
"""Log of the smallest relative probability.

The noise of a token lies between -3.7 and 37.5. So a token whose score is 42 below the largest is not drawn.
The exponential of a number below -87 is a denormal number, which takes some processors 80 times as long.
"""


class Row(NamedTuple):
    """What one token is drawn from. For the settings see `Sampling`."""

    log_probs: NDArray[np.float32]  # [vocab]
    key: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float


def draw_rows(log_probs: Tensor, keys: Tensor, settings: Sequence[Tensor]) -> Tensor:
    """Draw one token per row on a CPU. Return the tokens [rows], int64.

    Args:
        log_probs: [rows, vocab], float32, normalised.
        keys: [rows], int64, the noise key of each row.
        settings: temperature, top-k, top-p and min-p, [rows] each.
    """
    columns = [cast("list[float]", column.tolist()) for column in (keys, *settings)]
    rows = list(map(Row, log_probs.numpy(), *columns))
    threads = min(torch.get_num_threads(), len(rows))
    if threads <= 1:
        return torch.tensor(_draw(rows), dtype=torch.int64)
    tokens = torch.empty(len(rows), dtype=torch.int64)
    with ThreadPoolExecutor(threads) as pool:
        for thread, drawn in enumerate(pool.map(_draw, [rows[first::threads] for first in range(threads)])):
            tokens[thread::threads] = torch.tensor(drawn)
    return tokens


def _draw(rows: Sequence[Row]) -> list[int]:
    """Draw one token per row, one row after another."""
    if not rows:
        return []
    row_draw = _RowDraw(rows[0].log_probs.size)
    return [row_draw.draw(row) for row in rows]


class _Candidates(NamedTuple):
    """Tokens that can still be drawn, in the order of their ids."""

    tokens: NDArray[np.intp] | None  # [candidates], the ids; None stands for the whole vocabulary
    scores: NDArray[np.float32]  # [candidates], log-prob / temperature
    chances: NDArray[np.float32]  # [candidates], probability divided by the largest one
    ratios: NDArray[np.float32]  # [candidates], lower bounds of (1 - u) / chance, see `_winner`

    def select(self, indices: NDArray[np.intp]) -> _Candidates:
        ids = indices if self.tokens is None else self.tokens[indices]
        return _Candidates(ids, *(values[indices] for values in self[1:]))


class _RowDraw:
    """Draws tokens for one row after another. All rows use the same memory, because fresh memory is slow."""

    def __init__(self, vocab: int) -> None:
        self._noise = FastNoise(vocab)
        self._scores, self._chances, self._masked = np.empty((3, vocab), np.float32)

    def draw(self, row: Row) -> int:
        scores = np.divide(row.log_probs, np.float32(row.temperature), out=self._scores)
        if row.log_probs.min() <= FLOOR:  # a token that a rule has made impossible stays impossible
            np.putmask(scores, row.log_probs <= FLOOR, -math.inf)
        largest = scores.max()
        if not math.isfinite(largest):
            return int(scores.argmax())  # the first NaN, which the decoder refuses
        tokens = None
        if 0 < row.top_k < len(scores):
            tokens = _likeliest(scores, row.top_k)
            scores = scores[tokens]
        chances = np.subtract(scores, largest, out=self._chances[: len(scores)])
        if chances.min() < _LEAST:
            np.maximum(chances, _LEAST, out=chances)
        np.exp(chances, out=chances)
        mass = float(chances.sum())
        if row.min_p or row.top_p < 1:
            # All tokens below this chance together have less than 1 - top_p, so that none of them survives.
            least = 0.99 * (1 - row.top_p) * mass / len(chances)
            passing = chances >= np.float32(least)
            if row.min_p:
                passing &= scores >= largest + np.float32(math.log(row.min_p))
            if row.min_p or np.count_nonzero(passing) < len(passing) / 4:
                indices = np.flatnonzero(passing)
                tokens = indices if tokens is None else tokens[indices]
                scores, chances = scores[indices], chances[indices]
        ratios = self._noise.least_complements(row.key, tokens)
        with np.errstate(over="ignore"):
            ratios /= chances
        candidates = _Candidates(tokens, scores, chances, ratios)
        while True:
            winner = _winner(candidates, row)
            before = self._before(candidates, winner, row.top_p * mass) if row.top_p < 1 else None
            if before is None:
                return winner if candidates.tokens is None else int(candidates.tokens[winner])
            candidates = candidates.select(before)

    def _before(self, candidates: _Candidates, index: int, limit: float) -> NDArray[np.intp] | None:
        """The candidates before the one with this index; None if their total chance is below the limit."""
        scores, chances = candidates.scores, candidates.chances
        likelier = scores > scores[index]
        ties = np.flatnonzero(scores[:index] == scores[index])
        masked = np.multiply(chances, likelier, out=self._masked[: len(chances)])
        if float(masked.sum()) + float(chances[index]) * len(ties) < limit:
            return None
        likelier[ties] = True
        return np.flatnonzero(likelier)


def _likeliest(scores: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """The ids of the `count` likeliest tokens, in ascending order; of equally likely tokens the lower ids."""
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    tokens = np.flatnonzero(scores >= least)
    ties = np.flatnonzero(scores[tokens] == least)
    return np.delete(tokens, ties[len(ties) - (len(tokens) - count) :])


def _winner(candidates: _Candidates, row: Row) -> int:
    """The index of the candidate with the largest score + `gumbel` as float32 numbers (see `draw`).

    The largest sum has the smallest -log(u) / chance, where u is the uniform number of the noise. Because
    1 - u <= -log(u), a candidate whose (1 - u) / chance is above the -log(u) / chance of another candidate is
    not the winner. There remain one or a few candidates, and only these get exact noise.
    """
    scores, chances, ratios = candidates.scores, candidates.chances, candidates.ratios
    first = int(ratios.argmin())
    chance = float(chances[first])
    complement = (float(ratios[first]) * chance + 7) * 2.0**-32 * (1 + 2.0**-20)  # not below the true one
    smallest = -math.log1p(-min(complement, 1 - 2.0**-54)) / chance * 2.0**32  # in the unit of the ratios
    # Rounding of the chances, the scores and the noise can change the order of numbers as near as this.
    rounding = 2.0**-22 * (abs(float(scores[first])) + 256)
    limit = min(smallest * math.exp(min(rounding, 80)), float(np.finfo(np.float32).max))
    remaining = np.flatnonzero(ratios <= np.float32(limit))
    if len(remaining) == 1:
        return int(remaining[0])
    ids = remaining if candidates.tokens is None else candidates.tokens[remaining]
    noise = gumbel(torch.tensor([row.key]), torch.from_numpy(ids))[0].numpy()
    if row.top_k or row.top_p < 1 or row.min_p:
        order = np.argsort(-scores[remaining], kind="stable")
        remaining, noise = remaining[order], noise[order]
    return int(remaining[(scores[remaining] + noise).argmax()])
