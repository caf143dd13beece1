"""The models, requests and decoders of `benchmarks.gpu`: random weights, random contexts, no download."""

from __future__ import annotations

import gc
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from cfg_lab.decoding.completion import Completion
from cfg_lab.decoding.decoder import Decoder
from cfg_lab.decoding.request import Branch, Request
from cfg_lab.decoding.static_check import has_static_steps
from cfg_lab.guidance import ClassifierFreeGuidance
from cfg_lab.models import LanguageModel, from_transformers

SCALES = (1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
"""The guidance scales of the grid."""

Shape = dict[str, Any]
"""Arguments of `LlamaConfig`."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much the benchmark does.

    Attributes:
        models: name -> shape of the models whose speed is measured.
        law_model: shape of the small model of the laws.
        brute_force_model: shape of the model whose texts are compared with brute force.
        context: number of tokens of every context in the measurements of speed.
        new_tokens: number of new tokens of every text in them.
        many_rows: number of rows of the largest batch.
        copied_bytes: size of the copy by which the bandwidth is measured.
        matrix: number of rows and columns of the product by which the rate of GEMM is measured.
        profiled_steps: number of steps whose launches are counted.
        repeats: largest number of runs of a measurement after its first.
    """

    models: dict[str, Shape]
    law_model: Shape
    brute_force_model: Shape
    context: int
    new_tokens: int
    many_rows: int
    copied_bytes: int
    matrix: int
    profiled_steps: int
    repeats: int


def _shape(
    vocab: int, hidden: int, inner: int, layers: int, heads: int, kv_heads: int, *, tied: bool = True
) -> Shape:
    return {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "tie_word_embeddings": tied,
    }


_SMALL = _shape(1021, 64, 128, 3, 4, 2)

SIZES = {
    "full": Size(
        models={
            "135M": _shape(49152, 576, 1536, 30, 9, 3),  # as SmolLM2
            "1.7B": _shape(49152, 2048, 8192, 24, 32, 32),  # as SmolLM2
            "8B": _shape(128256, 4096, 14336, 32, 32, 8, tied=False),  # as Llama 3.1
        },
        law_model=_SMALL,
        brute_force_model=_shape(49152, 576, 1536, 30, 9, 3),
        context=64,
        new_tokens=64,
        many_rows=512,
        copied_bytes=1 << 31,
        matrix=8192,
        profiled_steps=20,
        repeats=3,
    ),
    "tiny": Size(
        models={"tiny": _SMALL},
        law_model=_SMALL,
        brute_force_model=_SMALL,
        context=8,
        new_tokens=16,
        many_rows=72,
        copied_bytes=1 << 24,
        matrix=256,
        profiled_steps=4,
        repeats=1,
    ),
}


def build(shape: Shape, device: torch.device, dtype: torch.dtype, spread: float = 0.02) -> Any:
    """A Llama with random weights, made on the device. No token ends its texts.

    Args:
        spread: standard deviation of the weights. A large one spreads the logits, so that rounding seldom
            changes the likeliest token.
    """
    torch.manual_seed(0)
    config = LlamaConfig(
        **shape,
        max_position_embeddings=2048,
        initializer_range=spread,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    with torch.device(device):
        return cast("Any", AutoModelForCausalLM).from_config(config, dtype=dtype).eval()


def wrap(module: Any) -> LanguageModel:
    """The same model for the decoder. It is loaded and checked here, so that no measurement includes that."""
    model = from_transformers(module)
    model.module  # noqa: B018, loads and checks it
    has_static_steps(model)
    return model


def make_decoder(model: LanguageModel, max_rows: int, *, static: bool = True) -> Decoder:
    """A decoder with static steps, as CUDA graphs on CUDA; or with the step that every device can run."""
    if static:
        return Decoder(model, max_rows, cuda_graphs="auto", static=True)
    return Decoder(model, max_rows, cuda_graphs="off")


def decode(decoder: Decoder, requests: Sequence[Request]) -> list[Completion]:
    """The completion of each request, in the order of the requests."""
    completions = {id(completion.request): completion for completion in decoder.decode(requests)}
    return [completions[id(request)] for request in requests]


def contexts(count: int, length: int, vocab: int, seed: int) -> list[tuple[int, ...]]:
    """Random contexts of equal length."""
    generator = random.Random(seed)
    return [tuple(generator.choices(range(vocab), k=length)) for _ in range(count)]


def guided_requests(
    positives: Sequence[tuple[int, ...]],
    negatives: Sequence[tuple[int, ...]],
    scales: Sequence[float],
    new_tokens: int,
) -> list[Request]:
    """One greedy request for each scale and each pair of contexts, scales first."""
    return [
        Request(
            positive=positive,
            negatives=(Branch(negative),),
            guidance=ClassifierFreeGuidance(scale=scale),
            max_new_tokens=new_tokens,
        )
        for scale in scales
        for positive, negative in zip(positives, negatives, strict=True)
    ]


def plain_requests(positives: Sequence[tuple[int, ...]], new_tokens: int) -> list[Request]:
    """One greedy request without guidance for each context."""
    return [Request(positive=positive, max_new_tokens=new_tokens) for positive in positives]


def free_memory(device: torch.device) -> None:
    """Return the memory of tensors that nothing refers to any more to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
