"""Laws that hold on every device, as `benchmarks.gpu` checks them before it measures anything.

Texts are compared in float32. Sums may be rounded differently in batches of other shapes, so two equally
likely tokens can change places. Such a tie counts as equal if both tokens have the same score but for
rounding; what follows it in the two texts is another text, and is not compared.
"""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import torch

from benchmarks.gpu_models import (
    SCALES,
    Size,
    build,
    contexts,
    decode,
    guided_requests,
    make_decoder,
    plain_requests,
    wrap,
)
from cfg_lab.decoding.completion import Completion
from cfg_lab.decoding.noise import gumbel, position_keys
from cfg_lab.decoding.request import Branch, Request
from cfg_lab.decoding.sampling import Sampling
from cfg_lab.decoding.static_check import has_static_steps
from cfg_lab.guidance import ClassifierFreeGuidance, Interval, StopOnAgreement, UnionGuidance
from cfg_lab.models import LanguageModel

_TIE = 1e-3
"""Largest difference of the scores of two tokens that rounding can exchange, nats."""

_ROUNDING = 5e-3
"""Largest difference of the log-probs of one token by rounding, nats."""

_RULES = (
    ClassifierFreeGuidance(scale=1.5),
    ClassifierFreeGuidance(scale=3),
    ClassifierFreeGuidance(scale=0.5),
    ClassifierFreeGuidance(scale=2, schedule=Interval(begin=2, end=6)),
    ClassifierFreeGuidance(scale=2, stopping=StopOnAgreement(threshold=3, steps=2)),
    UnionGuidance(scale=2),
    None,
)
_SAMPLERS = (
    None,
    Sampling(),
    Sampling(temperature=0.7),
    Sampling(temperature=0.8, top_p=0.95),
    Sampling(top_k=40),
    Sampling(min_p=0.05),
)


class Text(NamedTuple):
    """New tokens, and the log-prob of each under the guided distribution, nats."""

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]


def text_of(completion: Completion) -> Text:
    """The text of a completion."""
    return Text(completion.tokens, completion.trace.guided)


def compare(requests: Sequence[Request], first: Sequence[Text], second: Sequence[Text]) -> dict[str, Any]:
    """How two lists of texts of the same requests differ.

    Returns:
        texts: their number; equal: texts with equal tokens; ties: texts that are equal up to a tie, see the
        top of this module; different: all others. largest_difference: that of the log-probs of equal tokens,
        nats. passed: whether no text is different, and the log-probs differ by rounding alone.
    """
    ties = different = 0
    largest = 0.0
    for request, a, b in zip(requests, first, second, strict=True):
        common = _common_length(a.tokens, b.tokens)
        gaps = [abs(x - y) for x, y in zip(a.log_probs[:common], b.log_probs[:common], strict=True)]
        largest = max([largest, *gaps])
        if common == len(a.tokens) == len(b.tokens):
            continue
        if common == min(len(a.tokens), len(b.tokens)) or not _is_tie(request, a, b, common):
            different += 1
        else:
            ties += 1
    return {
        "texts": len(requests),
        "equal": len(requests) - ties - different,
        "ties": ties,
        "different": different,
        "largest_difference": largest,
        "passed": different == 0 and largest <= _ROUNDING,
    }


def _common_length(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _is_tie(request: Request, a: Text, b: Text, step: int) -> bool:
    """Whether the tokens of two texts at a step have the same score: log-prob by temperature, plus noise."""
    temperature, noise = 1.0, [0.0, 0.0]
    if isinstance(request.sampling, Sampling):
        temperature = request.sampling.temperature
        key = position_keys(torch.tensor([request.noise_key]), torch.tensor([step]))
        noise = cast("list[float]", gumbel(key, torch.tensor([a.tokens[step], b.tokens[step]]))[0].tolist())
    scores = [text.log_probs[step] / temperature + gap for text, gap in zip((a, b), noise, strict=True)]
    return abs(scores[0] - scores[1]) <= _TIE


@torch.no_grad()
def brute_force(module: Any, request: Request) -> Text:
    """The greedy text of a request with at most one negative, by forwards of transformers without a cache."""
    tokens: list[int] = []
    chosen: list[float] = []

    def log_probs(context: tuple[int, ...]) -> torch.Tensor:
        ids = torch.tensor([[*context, *tokens]], device=module.device)
        return module(input_ids=ids, use_cache=False).logits[0, -1].float().log_softmax(-1)

    for step in range(request.max_new_tokens):
        guided = log_probs(request.positive)
        for branch in request.branches:
            negative = log_probs(branch.ids)
            assert request.guidance is not None
            guided = negative + request.guidance.scale_at(step) * (guided - negative)
            guided = guided.log_softmax(-1)
        tokens.append(int(guided.argmax()))
        chosen.append(float(guided[tokens[-1]]))
    return Text(tuple(tokens), tuple(chosen))


def random_requests(count: int, vocab: int) -> list[Request]:
    """Requests that differ in everything: lengths, negatives, rules, samplers and stop tokens."""
    generator = random.Random(1)
    shared = contexts(3, 9, vocab, 2)
    requests: list[Request] = []
    for number in range(count):
        # Some contexts cross 128 columns while the text is decoded, and some requests share a context.
        length = generator.choice([2, 7, 23, 60, 122])
        own = contexts(4, length, vocab, number)
        negatives = own[1 : 1 + generator.choice([1, 1, 1, 2, 3])]
        requests.append(
            Request(
                positive=generator.choice([own[0], own[0], *shared]),
                negatives=tuple(
                    Branch(ids[: generator.randint(1, length)], generator.choice([1.0, 0.5]))
                    for ids in negatives
                ),
                guidance=generator.choice(_RULES),
                sampling=generator.choice(_SAMPLERS),
                max_new_tokens=generator.randint(1, 16),
                stop_ids=frozenset(generator.sample(range(vocab), vocab // 16)),
                sample=number,
                top=generator.choice([0, 0, 0, 3]),
            )
        )
    return requests


def static_is_eager(model: LanguageModel) -> dict[str, Any]:
    """The static step gives the texts of the step that every device can run, and the model does use it."""
    requests = random_requests(64, model.vocab_size)
    first, second = (
        [text_of(completion) for completion in decode(make_decoder(model, 200, static=static), requests)]
        for static in (True, False)
    )
    comparison = compare(requests, first, second)
    return {**comparison, "passed": comparison["passed"] and has_static_steps(model)}


def batch_is_alone(model: LanguageModel) -> dict[str, Any]:
    """Each of 64 requests has the text that it has alone, though few rows are there for all of them."""
    requests = random_requests(64, model.vocab_size)
    decoder = make_decoder(model, 24)
    texts = list(map(text_of, decode(decoder, requests)))
    alone = [text_of(decode(make_decoder(model, 24, static=False), [request])[0]) for request in requests]
    return {**compare(requests, texts, alone), "steps": decoder.steps}


def guided_is_brute_force(model: LanguageModel, new_tokens: int) -> dict[str, Any]:
    """Guided greedy texts are those of brute force."""
    positives, negatives = (contexts(4, 20, model.vocab_size, seed) for seed in (5, 6))
    requests = guided_requests(positives, negatives, SCALES[::3], new_tokens)
    texts = list(map(text_of, decode(make_decoder(model, 64), requests)))
    return compare(requests, texts, [brute_force(model.module, request) for request in requests])


def scale_1_is_plain(model: LanguageModel, new_tokens: int) -> dict[str, Any]:
    """At scale 1, guidance is off: its texts are those of requests without guidance, and of brute force."""
    positives, negatives = (contexts(4, 20, model.vocab_size, seed) for seed in (7, 8))
    requests = guided_requests(positives, negatives, [1], new_tokens)
    plain = plain_requests(positives, new_tokens)
    # Guided requests are in the same batch, so that rows without guidance are beside rows with it.
    others = [replace(request, guidance=ClassifierFreeGuidance(scale=2)) for request in requests]
    texts = [text_of(completion) for completion in decode(make_decoder(model, 64), [*requests, *others])[:4]]
    expected = [text_of(completion) for completion in decode(make_decoder(model, 64), plain)]
    by_hand = [brute_force(model.module, request) for request in plain]
    against_plain, against_hand = compare(plain, texts, expected), compare(plain, texts, by_hand)
    return {**against_hand, "passed": against_plain["passed"] and against_hand["passed"]}


def check_laws(size: Size, device: torch.device, new_tokens: int = 12) -> dict[str, dict[str, Any]]:
    """Every law by its name; `compare` says what is returned for each. One that raises is broken."""
    small = wrap(build(size.law_model, device, torch.float32, spread=0.4))

    def brute_force_law() -> dict[str, Any]:
        model = small
        if size.brute_force_model is not size.law_model:
            model = wrap(build(size.brute_force_model, device, torch.float32, spread=0.05))
        return guided_is_brute_force(model, new_tokens)

    laws: dict[str, Callable[[], dict[str, Any]]] = {
        "static step = eager step": lambda: static_is_eager(small),
        "64 requests in a batch = each alone": lambda: batch_is_alone(small),
        "scale 1 = plain decoding": lambda: scale_1_is_plain(small, new_tokens),
        "guided greedy = brute force": brute_force_law,
    }
    results: dict[str, dict[str, Any]] = {}
    for name, law in laws.items():
        try:
            results[name] = law()
        except Exception as error:  # the other laws may hold
            traceback.print_exc()
            results[name] = {"passed": False, "error": f"{type(error).__name__}: {error}"}
    return results


def rounding_in_bfloat16(size: Size, device: torch.device, new_tokens: int = 24) -> dict[str, Any]:
    """How much the shape of a batch changes greedy texts of a bfloat16 model; see `compare`. No law.

    The texts are those of guided requests in one batch, compared with those of each request alone.
    """
    model = wrap(build(size.brute_force_model, device, torch.bfloat16, spread=0.05))
    positives, negatives = (contexts(8, 20, model.vocab_size, seed) for seed in (9, 10))
    requests = guided_requests(positives, negatives, SCALES[2:4], new_tokens)
    texts = list(map(text_of, decode(make_decoder(model, 64), requests)))
    alone = [text_of(decode(make_decoder(model, 64), [request])[0]) for request in requests]
    comparison = compare(requests, texts, alone)
    return {name: comparison[name] for name in ("texts", "equal", "largest_difference")}
