"""Parts of recorded studies that compute something of their own."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from cfg_lab import Branch, ClassifierFreeGuidance, Decoder, Request
from cfg_lab.models import from_transformers
from experiments.code.analyse import pass_at_k
from experiments.domains.toy_translation import model, tokenizer, train


@pytest.mark.parametrize("passed", range(7))
@pytest.mark.parametrize("k", range(1, 7))
def test_pass_at_k_is_the_share_of_subsets_with_a_pass(passed: int, k: int) -> None:
    samples = [True] * passed + [False] * (6 - passed)
    subsets = [any(subset) for subset in combinations(samples, k)]
    assert pass_at_k(6, passed, k) == pytest.approx(sum(subsets) / len(subsets))


def test_guidance_away_from_the_empty_source_is_its_formula() -> None:
    """Compared with the model's own forward, with the logits of both sources combined."""
    student = model()
    train(student, 15)
    spelling = from_transformers(student, tokenizer())
    source, empty = spelling.encode("abcdef"), spelling.encode("")
    request = Request(
        positive=source,
        negatives=(Branch(empty),),
        guidance=ClassifierFreeGuidance(scale=2.5),
        max_new_tokens=6,
    )
    (completion,) = Decoder(spelling).decode([request])
    written = [student.config.decoder_start_token_id, *completion.tokens[:-1]]
    with torch.no_grad():
        positive, negative = (
            student(input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([written])).logits[0]
            for ids in (source, empty)
        )
    guided = (negative + 2.5 * (positive - negative)).log_softmax(-1)
    assert list(completion.tokens) == guided.argmax(-1).tolist()
    expected = guided.gather(1, torch.tensor(completion.tokens)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(completion.trace.guided), expected, rtol=0, atol=1e-4)
