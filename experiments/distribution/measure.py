"""Measures what guidance does to next-token distributions, on given texts (teacher forcing).

Run `python -m experiments.distribution.measure` in the repository's folder. For each model:

1. The model continues each prompt without guidance, at temperature 1. Guidance is measured on these texts, so
   all negatives and scales see the same contexts.
2. Every branch reads its context and the text. This gives its distribution before every token of the text.
3. Guidance combines the branches. Numbers about each token are written to two files:
   branches.parquet compares the positive with the negative branch, with one row per token and negative;
   guided.parquet compares the guided with the plain distribution, with one row per token, negative and scale.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor

import cfg_lab
from cfg_lab.guidance.divergences import entropy, js_divergence, kl_divergence
from cfg_lab.guidance.log_probs import log_probs
from cfg_lab.models import LanguageModel
from cfg_lab.negatives import NamedNegative, Negative, PhraseNegative
from cfg_lab.options import CONFIG
from experiments.record import Record, size_of

MODELS = {
    "smoke": ("smollm2",),
    "cpu": ("smollm2", "gemma3-270m"),
    "gpu": ("HuggingFaceTB/SmolLM2-1.7B-Instruct", "HuggingFaceTB/SmolLM2-1.7B"),
}
PROMPTS = {"smoke": 2, "cpu": 64, "gpu": 200}
TOKENS = {"smoke": 8, "cpu": 32, "gpu": 128}

NEGATIVES: dict[str, Negative] = {
    "last_token": NamedNegative(variant="last_token"),
    "empty": NamedNegative(variant="empty"),
    "own": PhraseNegative(),
}
SCALES = (1.5, 3.0)
TOP_P = 0.9
"""Nuclei are the smallest sets of likeliest tokens with this total probability."""


def main() -> None:
    """Measure all models of the size on the command line, and write both files into the record."""
    size = size_of(sys.argv[1:])
    folder = Record.of_command_line("distribution").folder
    prompts = openers(PROMPTS[size])
    branches: list[pd.DataFrame] = []
    guided: list[pd.DataFrame] = []
    for name in MODELS[size]:
        model = cfg_lab.load_model(name)
        for prompt, tokens in plain_texts(model, prompts, TOKENS[size]):
            positive = distributions(model, model.encode(prompt.text, prompt.system), tokens)
            plain = nucleus(positive)
            for label, negative in NEGATIVES.items():
                (branch,) = negative.branches(prompt, model)
                other = distributions(model, branch.ids, tokens)
                settings = {"model": name, "prompt_id": prompt.id, "negative": label}
                branches.append(frame(settings, between_branches(positive, other)))
                for scale in SCALES:
                    numbers = of_guidance(positive, other, scale, tokens, plain)
                    guided.append(frame({**settings, "scale": scale}, numbers))
            print(f"{name}: {prompt.id}", flush=True)
    write(branches, folder / "branches.parquet")
    write(guided, folder / "guided.parquet")


def openers(limit: int) -> list[cfg_lab.Prompt]:
    """The first prompts of the option `prompts=openers_200`."""
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        config = compose("sweep", overrides=["prompts=openers_200", f"prompts.limit={limit}"])
    return instantiate(config.prompts, _convert_="all")


def plain_texts(
    model: LanguageModel, prompts: Sequence[cfg_lab.Prompt], length: int
) -> Iterator[tuple[cfg_lab.Prompt, tuple[int, ...]]]:
    """Each prompt with the tokens of its unguided text, in the order of the prompts."""
    requests = [
        cfg_lab.Request(
            positive=model.encode(prompt.text, prompt.system),
            sampling=cfg_lab.Sampling(),
            max_new_tokens=length,
            stop_ids=model.stop_ids,
        )
        for prompt in prompts
    ]
    completions = {id(done.request): done.tokens for done in cfg_lab.Decoder(model).decode(requests)}
    for prompt, request in zip(prompts, requests, strict=True):
        yield prompt, completions[id(request)]


@torch.inference_mode()
def distributions(model: LanguageModel, context: Sequence[int], tokens: Sequence[int]) -> Tensor:
    """Log-probs [tokens, vocab] before each token of a text that follows the context."""
    ids = torch.tensor([[*context, *tokens[:-1]]], device=model.device)
    logits = model.module(input_ids=ids, use_cache=False, logits_to_keep=len(tokens)).logits[0]
    return log_probs(logits)


def between_branches(positive: Tensor, negative: Tensor) -> dict[str, Tensor]:
    """Numbers [tokens] about the distance of the branches, each [tokens, vocab]."""
    return {
        "entropy": entropy(positive),
        "entropy_negative": entropy(negative),
        "renyi_half": renyi(positive, negative, 0.5),
        "kl": kl_divergence(positive, negative),
        "renyi_2": renyi(positive, negative, 2),
        "renyi_3": renyi(positive, negative, 3),
        "jsd": js_divergence(positive, negative),
        "same_top": (positive.argmax(-1) == negative.argmax(-1)).float(),
    }


def of_guidance(
    positive: Tensor, negative: Tensor, scale: float, tokens: Sequence[int], plain: Tensor
) -> dict[str, Tensor]:
    """Numbers [tokens] about the guided distribution beside the plain one.

    Args:
        plain: the nuclei of the positive branch, as from `nucleus`.

    log_normaliser: log sum_x p(x)^scale n(x)^(1 - scale), which is (scale - 1) * D_scale(p || n).
    overlap: tokens in both nuclei, as a share of the tokens in one of them or both (Jaccard index).
    kept: tokens in both nuclei, as a share of the plain nucleus.
    rank_plain, rank_guided: rank of the text's next token, 1 for the likeliest.
    """
    combined = negative + scale * (positive - negative)
    guided = log_probs(combined)
    nuclei = nucleus(guided)
    both = (plain & nuclei).sum(-1)
    return {
        "entropy": entropy(positive),
        "entropy_guided": entropy(guided),
        "kl": kl_divergence(guided, positive),
        "log_normaliser": combined.logsumexp(-1),
        "nucleus_plain": plain.sum(-1),
        "nucleus_guided": nuclei.sum(-1),
        "overlap": both / (plain | nuclei).sum(-1),
        "kept": both / plain.sum(-1),
        "same_top": (positive.argmax(-1) == guided.argmax(-1)).float(),
        "rank_plain": rank(positive, tokens),
        "rank_guided": rank(guided, tokens),
    }


def renyi(p: Tensor, q: Tensor, order: float) -> Tensor:
    """Rényi divergence D_order(p || q) [...] of log-probs [..., vocab], in nats; the order is not 1."""
    return (order * p + (1 - order) * q).logsumexp(-1) / (order - 1)


def nucleus(p: Tensor, top_p: float = TOP_P) -> Tensor:
    """Which tokens [tokens, vocab] are in the smallest set of likeliest tokens with probability `top_p`.

    Sorting a large vocabulary is slow, so only as many of the likeliest tokens are sorted as are needed.
    """
    width = 1024
    while True:
        width = min(width, p.shape[-1])
        likeliest, tokens = p.topk(width)
        probs = likeliest.exp()
        mass_before = probs.cumsum(-1) - probs
        if width == p.shape[-1] or bool((mass_before[:, -1] >= top_p).all()):
            return torch.zeros_like(p, dtype=torch.bool).scatter_(1, tokens, mass_before < top_p)
        width *= 8


def rank(p: Tensor, tokens: Sequence[int]) -> Tensor:
    """Rank [tokens] of each token of a text, 1 for the likeliest."""
    chosen = p.gather(1, torch.tensor(tokens, device=p.device)[:, None])
    return (p > chosen).sum(-1) + 1


def frame(settings: dict[str, Any], numbers: dict[str, Tensor]) -> pd.DataFrame:
    """One row per token of a text, with its position, counted from 0."""
    columns = {name: values.float().cpu().numpy() for name, values in numbers.items()}
    table = pd.DataFrame(columns)
    table.insert(0, "position", range(len(table)))
    for number, (name, value) in enumerate(settings.items()):
        table.insert(number, name, value)
    return table


def write(tables: list[pd.DataFrame], path: Path) -> None:
    """Write the rows of all texts to one file, with numbers rounded to four decimals to keep it small."""
    pd.concat(tables, ignore_index=True).round(4).to_parquet(path, compression="zstd", index=False)


if __name__ == "__main__":
    main()
