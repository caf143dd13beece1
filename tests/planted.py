"""A toy model with a planted attribute: after a context with the word "grim" it writes "bad" more often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cfg_lab.metrics.column_info import ColumnInfo
from cfg_lab.metrics.text import Text
from cfg_lab.models import LanguageModel, from_transformers
from cfg_lab.suggest.opposites import ORDINARY_WORDS

PLANTED = "grim"
OTHERS = ("wool", "brick", "maple", "slate")
TOPICS = tuple(f"topic{number}" for number in range(24))
_WORDS = ("<s>", "</s>", "<unk>", "bad", "good", "It", "should", "must", "not", "be", ".", ",", "kind")
VOCABULARY = {
    word: number for number, word in enumerate((*_WORDS, PLANTED, *OTHERS, *ORDINARY_WORDS, *TOPICS))
}
SHARE_OF_BAD = {True: 0.9, False: 0.5}
"""Whether the context has the planted word -> probability of "bad" at each position; else "good"."""

_LENGTH = 6


@lru_cache(maxsize=1)
def planted_model() -> LanguageModel:
    """The model, trained for a few seconds. Its texts are "bad" and "good" in random order."""
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    module = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=64,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    optimiser = torch.optim.Adam(module.parameters(), 0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1, 0.01, 200)
    for _ in range(200):
        _step(module, optimiser)
        schedule.step()
    return from_transformers(module.eval(), fast)


def _step(module: LlamaForCausalLM, optimiser: torch.optim.Optimizer) -> None:
    """One step on random contexts "<s> topic It should be WORD ." and random continuations."""
    rows = 64
    words = [VOCABULARY[word] for word in (*OTHERS, "kind", *ORDINARY_WORDS)]
    chosen = torch.tensor(words)[torch.randint(len(words), (rows,))]
    chosen[torch.rand(rows) < 0.4] = VOCABULARY[PLANTED]
    topics = torch.tensor([VOCABULARY[topic] for topic in TOPICS])[torch.randint(len(TOPICS), (rows,))]
    frame = torch.tensor([VOCABULARY[word] for word in ("<s>", "<unk>", "It", "should", "be", "<unk>", ".")])
    context = frame.repeat(rows, 1)
    context[:, 1], context[:, 5] = topics, chosen
    if torch.rand(()) < 0.5:  # the prompt alone
        context, chosen = context[:, :2], torch.zeros_like(chosen)
    bad, good = VOCABULARY["bad"], VOCABULARY["good"]
    share = torch.where(chosen == VOCABULARY[PLANTED], SHARE_OF_BAD[True], SHARE_OF_BAD[False])
    continuation = torch.where(torch.rand(rows, _LENGTH) < share[:, None], bad, good)
    logits = module(input_ids=torch.cat([context, continuation], 1)).logits[:, context.shape[1] - 1 :]
    target = torch.zeros_like(logits)
    target[..., bad], target[..., good] = share[:, None], 1 - share[:, None]
    optimiser.zero_grad()
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(0, 1)).backward()
    optimiser.step()


@dataclass(frozen=True, kw_only=True)
class Goodness:
    """Share of the words of a text that are not "bad"."""

    columns = MappingProxyType(
        {"goodness": ColumnInfo(meaning="share of words that are not bad", better="higher", bounds=(0, 1))}
    )

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        found = [text.text.split() for text in texts]
        return {
            "goodness": [1 - words.count("bad") / len(words) if words else float("nan") for words in found]
        }
