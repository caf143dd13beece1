"""Results made up to say something known: frames as `load_results` gives them."""

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
    """Sentiment is `shift[scale]` above 0.5, and perplexity `price * (scale - 1)` above 5, but for noise.

    Texts differ by cell in their last words. `pieces` adds the text of each token, `top` alternatives.
    """
    random = np.random.default_rng(seed)
    level = random.normal(0, noise, (prompts, samples))  # of a prompt's texts, the same in all cells
    rows: list[dict[str, Any]] = []
    for scale, moved in (shift or {1.0: 0.0, 2.0: 0.3}).items():
        for negative in negatives:
            for prompt in range(prompts):
                for sample in range(samples):
                    own, spread = level[prompt, sample], random.normal(0, noise, 4)
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
                            "completion": f"{'' if scale == 1 else negative}-{scale:g}-{prompt}-{sample}",
                            "text": text if scale == 1 else f"{text} Then {negative} {scale:g}",
                            "finish_reason": "length",
                            "tokens": list(range(len(TOKENS))),
                            "positive_ids": [1, 2],
                            "negative_ids": [] if scale == 1 else [[1]],
                            "negative_weights": [] if scale == 1 else [1.0],
                            "model_name": "tiny",
                            "model_fingerprint": "abc123",
                            **_trace(scale),
                            **({"pieces": TOKENS} if pieces else {}),
                            **(_alternatives(top) if top else {}),
                            "sentiment": 0.5 + moved + own + (spread[0] if scale != 1 else 0),
                            "perplexity": 5 + price * (scale - 1) + own + (spread[1] if scale != 1 else 0),
                            "distinct_1": 0.7 + own + (spread[2] if scale != 1 else 0),
                            "length": 6.0,
                        }
                    )
    return pd.DataFrame(rows)


def _trace(scale: float) -> dict[str, list[float]]:
    steps = len(TOKENS)
    moves = [0.0, 3.0, -0.3, 0.1, -1.5, 0.0]
    positive = [-4.0] * steps
    return {
        "trace_guided": [p + move * (scale - 1) for p, move in zip(positive, moves, strict=True)],
        "trace_positive": positive,
        "trace_negative": [float("nan") if scale == 1 else -5.0] * steps,
        "trace_entropy": [1.25] * steps,
        "trace_divergence": [float("nan") if scale == 1 else 0.5] * steps,
        "trace_scale": [scale] * steps,
    }


def _alternatives(top: int) -> dict[str, list[list[dict[str, Any]]]]:
    def of(branch: str) -> list[list[dict[str, Any]]]:
        return [
            [{"token": k, "piece": f" {branch}{k}", "log_prob": -0.5 - k} for k in range(top)] for _ in TOKENS
        ]

    return {f"alternatives_{branch}": of(branch) for branch in ("guided", "positive", "negative")}
