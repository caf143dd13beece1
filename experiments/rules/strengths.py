"""How far samplers move a distribution, and the identity of contrastive guidance, on real log-probs.

A trace is measured before temperature and truncation. So what a sampler does to unguided decoding is computed
here: the model reads every unguided text, and its distributions are changed as the sampler changes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cfg_lab.guidance.divergences import entropy, kl_divergence
from cfg_lab.guidance.log_probs import log_probs
from cfg_lab.models import LanguageModel, evaluator_model

SHARE = 0.5
"""The share c of the negative that contrastive formulas subtract."""


def of_samplers(results: pd.DataFrame) -> pd.DataFrame:
    """Entropy and divergence of the sampled distribution in all unguided cells: means over a text's tokens.

    Args:
        results: from `cfg_lab.load_results`.

    Returns:
        One row per cell and prompt: `temperature`, `min_p`, `prompt_id`, `entropy` of the distribution that
        tokens are drawn from, and `kl` = KL(this distribution || the model's distribution), both in nats per
        token. Only the first text of a prompt is measured.
    """
    rows: list[dict[str, Any]] = []
    unguided = results[(results["guidance.scale"] == 1) & (results["sample"] == 0)]
    for text, positive in _read(unguided):
        sampler = {"temperature": text["sampling.temperature"], "min_p": text["sampling.min_p"]}
        drawn = sampled(positive, **sampler)
        numbers = {"entropy": entropy(drawn), "kl": kl_divergence(drawn, positive)}
        means = {name: float(values.mean()) for name, values in numbers.items()}
        rows.append({**sampler, "prompt_id": text["prompt_id"], **means})
    return pd.DataFrame(rows).round(5)


def of_contrastive_formula(results: pd.DataFrame) -> pd.DataFrame:
    """The formula positive - c * negative beside classifier-free guidance, on the plain texts.

        positive - c * negative = (negative + scale * (positive - negative)) / scale,   scale = 1 / (1 - c)

    So it is classifier-free guidance at this scale, sampled at a temperature equal to the scale.

    Returns:
        One row per prompt, with means over the tokens of its text: `difference`, the largest difference
        between both sides in the probability of a token; `entropy_plain`; `entropy_cfg` and `kl_cfg` of
        guidance at temperature 1; `entropy_contrastive` and `kl_contrastive` of the formula. Entropies are in
        nats, and so are the divergences (`kl`) from plain decoding.
    """
    guided = results[(results["guidance"] == "cfg") & (results["guidance.scale"] == 2)]
    negatives = guided.drop_duplicates("prompt_id").set_index("prompt_id")["negative_ids"]
    plain = results[(results["guidance.scale"] == 1) & (results["sample"] == 0)]
    plain = plain[(plain["sampling.temperature"] == 1) & (plain["sampling.min_p"] == 0)]
    scale = 1 / (1 - SHARE)
    rows: list[dict[str, Any]] = []
    negative_texts = plain.assign(positive_ids=[negatives[prompt][0] for prompt in plain["prompt_id"]])
    for (text, positive), (_, negative) in zip(_read(plain), _read(negative_texts), strict=True):
        cfg = negative + scale * (positive - negative)
        contrastive = log_probs(positive - SHARE * negative)
        tempered = log_probs(cfg / scale)
        cfg = log_probs(cfg)
        numbers = {
            "difference": (contrastive.exp() - tempered.exp()).abs().amax(-1),
            "entropy_plain": entropy(positive),
            "entropy_cfg": entropy(cfg),
            "kl_cfg": kl_divergence(cfg, positive),
            "entropy_contrastive": entropy(contrastive),
            "kl_contrastive": kl_divergence(contrastive, positive),
        }
        rows.append({"prompt_id": text["prompt_id"], **{k: float(v.mean()) for k, v in numbers.items()}})
    return pd.DataFrame(rows)


def sampled(positive: Tensor, temperature: float, min_p: float) -> Tensor:
    """Log-probs [tokens, vocab] of what is drawn from log-probs by temperature, then min-p."""
    scores = log_probs(positive / temperature)
    lowest = scores.amax(-1, keepdim=True) + (math.log(min_p) if min_p else -math.inf)
    return log_probs(scores.masked_fill(scores < lowest, -math.inf))


def _read(texts: pd.DataFrame) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """Each text with the model's log-probs [tokens, vocab] after its positive context."""
    model = evaluator_model(str(texts["model.name"].iloc[0]))
    rows: list[dict[str, Any]] = texts.to_dict("records")  # pyright: ignore[reportAssignmentType]
    for text in rows:
        ids = [*text["positive_ids"], *text["tokens"][:-1]]
        yield text, _log_probs(model, ids, len(text["tokens"]))


@torch.inference_mode()
def _log_probs(model: LanguageModel, ids: list[int], count: int) -> Tensor:
    """Log-probs [count, vocab] after the last `count` tokens."""
    batch = torch.tensor([ids], device=model.device)
    return log_probs(model.module(input_ids=batch, use_cache=False, logits_to_keep=count).logits[0])
