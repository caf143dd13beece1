"""Every architecture of transformers is decoded right, or refused in a sentence.

`python -m tests.test_architectures` writes the table of the outcomes.
"""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)
from transformers.utils import logging

from cfg_lab.decoding.decoder import Decoder
from cfg_lab.decoding.request import Branch, Request
from cfg_lab.errors import InputError
from cfg_lab.guidance import ClassifierFreeGuidance
from cfg_lab.models import LanguageModel, from_transformers
from cfg_lab.models import load as loading
from tests.tiny_architectures import build

TABLE = Path(loading.__file__).parent / "ARCHITECTURES.md"
ROUNDING = 5e-3  # nats, at scale 3

_ENCODERS = {  # also used as decoders
    *(
        "bert",
        "bert-generation",
        "big_bird",
        "camembert",
        "data2vec-text",
        "electra",
        "ernie",
        "megatron-bert",
    ),
    *("rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm-roberta", "xlm-roberta-xl"),
    "xmod",
}
_IN_BOTH = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() & MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.keys()
NAMES = sorted(
    {
        *MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        *MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        *(f"{model_type}, decoder only" for model_type in [*_ENCODERS, *_IN_BOTH]),
    }
)


class Outcome(NamedTuple):
    """What became of an architecture: "decoded right", "refused" or "not built"."""

    kind: str
    class_name: str = ""
    reason: str = ""


def requests() -> list[Request]:
    """Four guided requests of different lengths, one with two negatives, one with a context of one token."""
    generator = torch.Generator().manual_seed(3)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(5, 60, (length,), generator=generator).tolist())

    return [
        Request(
            positive=ids(length),
            negatives=tuple(Branch(ids(negative)) for negative in negatives),
            guidance=ClassifierFreeGuidance(scale=scale),
            max_new_tokens=14,
        )
        for length, negatives, scale in [(11, (4,), 1.5), (3, (7,), 3.0), (1, (2,), 0.5), (8, (1, 5), 2.0)]
    ]


@torch.no_grad()
def own_log_probs(module: Any, start: tuple[int, ...], ids: tuple[int, ...], new: list[int]) -> Tensor:
    """Log-probs [vocab] of the next token by the model's own forward, batch 1, without a cache."""
    if module.config.is_encoder_decoder:
        decoder_ids = torch.tensor([[*start, *new]])
        output = module(input_ids=torch.tensor([ids]), decoder_input_ids=decoder_ids, use_cache=False)
    else:
        output = module(input_ids=torch.tensor([[*ids, *new]]), use_cache=False)
    return output.logits[0, -1].float().log_softmax(-1)


def check_decoding(model: LanguageModel) -> None:
    """Assert that guided decoding equals the formula by brute force, tokens and traces."""
    module, start, requested = model.module, model.start, requests()
    completions = {
        id(completion.request): completion for completion in Decoder(model, max_rows=5).decode(requested)
    }
    for request in requested:
        completion, tokens = completions[id(request)], list[int]()
        for token, traced in zip(completion.tokens, completion.trace.guided, strict=True):
            positive, *negatives = [own_log_probs(module, start, ids, tokens) for _, ids in request.contexts]
            push = sum((positive - negative for negative in negatives), torch.zeros(()))
            guided = positive + (request.guidance.scale_at(0) - 1) * push / len(negatives)
            guided = guided.log_softmax(-1)
            assert float(guided.max() - guided[token]) < ROUNDING, "another token is likelier"
            assert float(guided[token]) == pytest.approx(traced, abs=ROUNDING)
            tokens.append(token)
        assert len(tokens) == request.max_new_tokens


@cache
def outcome(name: str) -> Outcome:
    """Build a tiny model and decode with it.

    Raises:
        AssertionError: the lab decodes it, but wrongly.
    """
    logging.set_verbosity_error()
    model_type = name.partition(", ")[0]
    try:
        loading._check_kind(model_type, CONFIG_MAPPING[model_type](), False)
    except InputError:
        return Outcome("refused", "", "not a language model that reads only text")
    except Exception as error:  # transformers' own default config is not valid
        return Outcome("not built", "", _first_line(error))
    try:
        module = build(name)
        own_log_probs(module, (3,), (7, 8, 9), [])
    except Exception as error:
        return Outcome("not built", "", _first_line(error))
    class_name = type(module).__name__
    model = from_transformers(module)
    try:
        check_decoding(model)
    except InputError as error:
        _, _, reason = str(error).partition(f"({class_name}) ")
        assert reason, "the sentence names the class"
        return Outcome("refused", class_name, reason.removesuffix("; use another model"))
    return Outcome("decoded right", class_name)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:160]


@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_is_decoded_right_or_refused(name: str) -> None:
    assert outcome(name).kind in {"decoded right", "refused", "not built"}  # else it raises


def table() -> str:
    """The outcomes of all architectures, as Markdown."""
    lines = [
        "# Architectures",
        "",
        "Every architecture of transformers for text, at tiny size with random weights. `python -m "
        "tests.test_architectures` writes this file.",
    ]
    headings = {
        "decoded right": "Decoded right: guided decoding equals the formula by brute force",
        "refused": "Refused when the model is loaded, with the reason",
        "not built": "Not built at tiny size, so not tested here; the check at load decides",
    }
    for kind, heading in headings.items():
        rows = [(name, outcome(name)) for name in NAMES if outcome(name).kind == kind]
        lines += ["", f"## {heading}", "", "| type | class | reason |", "|---|---|---|"]
        if kind == "decoded right":
            lines[-2:] = ["| type | class |", "|---|---|"]
        for name, (_, class_name, reason) in rows:
            cells = [name, class_name] if kind == "decoded right" else [name, class_name, reason]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def test_the_table_is_up_to_date() -> None:
    assert TABLE.read_text() == table(), "write it anew: python -m tests.test_architectures"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    TABLE.write_text(table())
