"""Trains a tiny encoder-decoder model to spell words backwards, as a stand-in for a translation model.

Run `python -m experiments.domains.toy_translation`. It writes the model and 100 words that it was not trained
on to results/toy_translation. It takes less than a minute on one processor core.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

from experiments.record import size_of

FOLDER = Path("results", "toy_translation")
LETTERS = "abcdefghij"
SPECIAL = ["<pad>", "<s>", "</s>"]
STEPS = {"smoke": 5, "cpu": 120, "gpu": 120}


def word(rng: random.Random) -> str:
    """A word of 4 to 8 letters."""
    return "".join(rng.choices(LETTERS, k=rng.randint(4, 8)))


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per letter, and the end token after every text."""
    tokens = {token: number for number, token in enumerate([*SPECIAL, *LETTERS])}
    spelling = Tokenizer(models.WordLevel(tokens, unk_token="<pad>"))
    spelling.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    spelling.decoder = decoders.Fuse()
    spelling.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=spelling, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def model() -> BartForConditionalGeneration:
    """A BART of 2 + 2 layers with random weights."""
    torch.manual_seed(0)
    layers = {f"{half}_{key}": value for half in ("encoder", "decoder") for key, value in SHAPE.items()}
    return BartForConditionalGeneration(
        BartConfig(
            vocab_size=len(SPECIAL) + len(LETTERS),
            d_model=64,
            max_position_embeddings=64,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
            forced_eos_token_id=None,
            dropout=0.0,
            **layers,
        )
    )


SHAPE: dict[str, Any] = {"layers": 2, "attention_heads": 4, "ffn_dim": 128}


def train(student: BartForConditionalGeneration, steps: int) -> None:
    """Train with batches of 64 words. One word in ten is replaced by the empty source."""
    spell, rng = tokenizer(), random.Random(0)
    optimizer = torch.optim.AdamW(student.parameters(), lr=2e-3)
    student.train()
    for step in range(steps):
        words = [word(rng) for _ in range(64)]
        sources = spell([w if rng.random() > 0.1 else "" for w in words], padding=True, return_tensors="pt")
        labels: torch.Tensor = spell([w[::-1] for w in words], padding=True, return_tensors="pt").input_ids
        loss = student(
            input_ids=sources.input_ids,
            attention_mask=sources.attention_mask,
            labels=labels.masked_fill(labels == 0, -100),
        ).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 99 or step == steps - 1:
            print(f"step {step + 1} of {steps}: loss {loss.item():.3f}", flush=True)
    student.eval()


def main(steps: int) -> None:
    """Train the model, and write it with its test words."""
    student = model()
    train(student, steps)
    student.save_pretrained(FOLDER / "model")
    tokenizer().save_pretrained(FOLDER / "model")
    rng = random.Random(1)
    words = sorted({word(rng) for _ in range(100)})
    records = [{"id": w, "text": w, "reference": w[::-1]} for w in words]
    lines = [json.dumps(record) + "\n" for record in records]
    (FOLDER / "words.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(STEPS[size_of(sys.argv[1:])])
