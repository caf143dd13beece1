"""Independent judges of fluency: log-probs of given texts under another model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from cfg_lab.decoding.decoder import Decoder
from cfg_lab.decoding.request import Request
from cfg_lab.errors import InputError
from cfg_lab.models.language_model import LanguageModel
from cfg_lab.models.load import load_model
from cfg_lab.prompts import Prompt


@lru_cache(maxsize=2)
def load_evaluator(
    model: str, separator: str = "\n"
) -> Callable[[Sequence[tuple[Prompt, str]]], list[list[float]]]:
    """A function from prompts and texts to the log-probs of each text's tokens, nats, by teacher forcing.

    Args:
        model: see `load_model`.
        separator: between prompt and text for a model without chat template, where the text does not begin
            with white space itself. Such a model sees no system message.

    Raises:
        InputError: there is no such model.
    """
    try:
        loaded = load_model(model)
    except InputError as error:
        raise InputError(f"metrics.evaluator: {error}") from error
    return lambda texts: log_probs(loaded, texts, separator)


def log_probs(
    model: LanguageModel, texts: Sequence[tuple[Prompt, str]], separator: str = "\n"
) -> list[list[float]]:
    """Log-probs of each text's tokens given its prompt; [] for a text longer than the model can see.

    Where prompt and text together are too long, the prompt loses its beginning.
    """
    requests: dict[int, tuple[Request, tuple[int, ...]]] = {}
    for place, (prompt, text) in enumerate(texts):
        if model.chat:
            context = model.encode(prompt.text, prompt.system)
        else:
            joint = "" if text[:1].isspace() else separator
            context = model.encode(prompt.text + joint)
        tokens = tuple(model.tokenizer(text, add_special_tokens=False).input_ids)
        room = model.context_length - len(tokens)
        if tokens and room > 0:
            requests[place] = Request(positive=context[-room:], max_new_tokens=len(tokens)), tokens
    traces = Decoder(model).trace_texts(*zip(*requests.values(), strict=True)) if requests else []
    found: dict[int, list[float]] = {
        place: list(trace.positive) for place, trace in zip(requests, traces, strict=True)
    }
    return [found.get(place, []) for place in range(len(texts))]
