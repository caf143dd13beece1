"""Results frames with known effects, in the form in which `load_results` gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

TOKENS = ["The", " knight", " rode", "\n", " home", "."]


def results(
    shift: Mapping[float, float] | None = None,
    *,
    prompts: int = 20,
    samples: int = 2,
    negatives: Sequence[str] = ("own",),
    noise: float = 0.05,
    price: float = 0.0,
    seed: int = 0,
    text: str = "The knight rode\n home.",
    pieces: bool = False,
    top: int = 0,
) -> pd.DataFrame:
    """One row per text of a sweep over scales and negatives.

    Up to noise, sentiment is 0.5 + shift[scale] and perplexity is 5 + price * (scale - 1). At scale 1 all
    negatives have the same text. At other scales the last words of a text name its negative and scale.

    Args:
        shift: effect on sentiment, by scale; 0 at scale 1 and 0.3 at scale 2 by default.
        prompts, samples: number of prompts, and of samples of each.
        negatives: names of the negatives; each has one cell per scale.
        noise: standard deviation of the texts' deviations.
        price: effect on perplexity per unit of scale.
        seed: of the noise.
        text: text at scale 1, and beginning of all others.
        pieces: whether to add the column with the text of each token.
        top: number of alternatives per step; 0 leaves their columns out.
    """
    random = np.random.default_rng(seed)
    deviation = random.normal(0, noise, (prompts, samples))  # the same in all cells
    rows: list[dict[str, Any]] = []
    for scale, effect in (shift or {1.0: 0.0, 2.0: 0.3}).items():
        guided = scale != 1
        for negative in negatives:
            for prompt in range(prompts):
                for sample in range(samples):
                    shared, extra = deviation[prompt, sample], random.normal(0, noise, 4) * guided
                    rows.append(
                        {
                            "cell": f"{negative}-{scale:g}",
                            "model": "tiny",
                            "negatives": negative,
                            "guidance": "cfg",
                            "guidance.scale": scale,
                            "seed": 0,
                            "prompt_id": f"p{prompt}",
                            "prompt": f"Tell me about knight {prompt}",
                            "sample": sample,
                            "completion": f"{negative if guided else ''}-{scale:g}-{prompt}-{sample}",
                            "text": f"{text} Then {negative} {scale:g}" if guided else text,
                            "finish_reason": "length",
                            "tokens": list(range(len(TOKENS))),
                            "positive_ids": [1, 2 + prompt],
                            "negative_ids": [[1]] if guided else [],
                            "negative_weights": [1.0] if guided else [],
                            "model_name": "tiny",
                            "model_fingerprint": "abc123",
                            **_trace(scale),
                            **({"pieces": TOKENS} if pieces else {}),
                            **(_alternatives(top) if top else {}),
                            "sentiment": 0.5 + effect + shared + extra[0],
                            "perplexity": 5 + price * (scale - 1) + shared + extra[1],
                            "distinct_1": 0.7 + shared + extra[2],
                            "length": 6.0,
                        }
                    )
    return pd.DataFrame(rows)


def _trace(scale: float) -> dict[str, list[float]]:
    """The columns of the trace: one number per token."""
    steps = len(TOKENS)
    changes = [0.0, 3.0, -0.3, 0.1, -1.5, 0.0]  # of the log-prob, per unit of scale
    positive = [-4.0] * steps
    return {
        "trace_guided": [p + change * (scale - 1) for p, change in zip(positive, changes, strict=True)],
        "trace_positive": positive,
        "trace_negative": [float("nan") if scale == 1 else -5.0] * steps,
        "trace_entropy": [1.25] * steps,
        "trace_divergence": [float("nan") if scale == 1 else 0.5] * steps,
        "trace_scale": [scale] * steps,
    }


def _alternatives(top: int) -> dict[str, list[list[dict[str, Any]]]]:
    """The columns of the `top` likeliest tokens at each step, by distribution."""

    def alternatives(branch: str) -> list[list[dict[str, Any]]]:
        return [
            [{"token": k, "piece": f" {branch}{k}", "log_prob": -0.5 - k} for k in range(top)] for _ in TOKENS
        ]

    return {f"alternatives_{branch}": alternatives(branch) for branch in ("guided", "positive", "negative")}
