"""A tiny model in which a prompt changes the letters of the answer in a known way."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.conftest import make_tokenizer

LETTERS = "abcdefgh"
WITH_PROMPT = torch.tensor([7.0, 6, 5, 4, 3, 3, 2, 2]) / 32
WITHOUT_PROMPT = WITH_PROMPT.flip(0)


def save_taught_model(folder: Path, steps: int = 150) -> Path:
    """Teach a Llama of two layers, and save it with its tokenizer.

    Its answers are letters that do not depend on each other. They have the distribution WITH_PROMPT if the
    user's message has any text, and WITHOUT_PROMPT if it is empty.
    """
    torch.manual_seed(0)
    tokenizer = make_tokenizer(chat=True)
    config = LlamaConfig(
        vocab_size=259,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        bos_token_id=256,
        eos_token_id=257,
        initializer_range=0.15,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    letters = torch.tensor([tokenizer(letter).input_ids[0] for letter in LETTERS])
    for step in range(steps):
        text = "" if step % 2 else f"{chr(97 + step % 26)}{step % 97}"
        message = [{"role": "user", "content": text}]
        rendered = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        prompt = torch.tensor(tokenizer(rendered, add_special_tokens=False).input_ids)
        shares = WITHOUT_PROMPT if step % 2 else WITH_PROMPT
        answers = letters[torch.multinomial(shares.expand(32, -1), 12, replacement=True)]  # [32, 12]
        ids = torch.cat([prompt.expand(32, -1), answers], 1)
        logits = model(input_ids=ids).logits[:, len(prompt) - 1 : -1]
        # The whole distribution is the target, which needs fewer steps than the drawn letters.
        loss = -(shares * logits.log_softmax(-1)[..., letters]).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
