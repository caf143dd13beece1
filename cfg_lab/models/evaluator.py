"""Log-probs of given texts under an independent model, for metrics of fluency."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from cfg_lab.decoding.decoder import Decoder
from cfg_lab.decoding.request import Request
from cfg_lab.errors import InputError
from cfg_lab.models.language_model import LanguageModel
from cfg_lab.models.load import load_model
from cfg_lab.prompts import Prompt


def load_evaluator(
    model: str, separator: str = "\n"
) -> Callable[[Sequence[tuple[Prompt, str]]], list[list[float]]]:
    """A function from (prompt, text) pairs to the log-probs of each text's tokens, in nats.

    Args:
        model: the argument `name` of `load_model`. For an option of conf/model, all values of its YAML file
            are used.
        separator: text that stands between prompt and text, see `log_probs`.

    Raises:
        InputError: there is no such model, or its weights are broken.
    """
    try:
        evaluator = evaluator_model(model)
        evaluator.fingerprint  # noqa: B018, checks the weight files now, and not after hours of decoding
    except InputError as error:
        raise InputError(f"metrics.evaluator: {error}") from error
    return lambda texts: log_probs(evaluator, texts, separator)


@lru_cache(maxsize=2)
def evaluator_model(model: str) -> LanguageModel:
    """The model with this name, which stays loaded: whatever judges texts with it uses the same one."""
    return load_model(model)


def log_probs(
    model: LanguageModel, texts: Sequence[tuple[Prompt, str]], separator: str = "\n"
) -> list[list[float]]:
    """Log-probs of each text's tokens given its prompt, in nats, by teacher forcing.

    A prompt is cut at its beginning if prompt and text together exceed the model's context length. The result
    is [] for a text that leaves no room for a prompt, and for an empty text.

    Args:
        texts: pairs of a prompt and a text that follows it.
        separator: written between prompt and text if the model has no chat template and the text does not
            begin with white space. A model without a chat template is not given the system message.
    """
    requests: dict[int, Request] = {}
    continuations: dict[int, tuple[int, ...]] = {}
    for number, (prompt, text) in enumerate(texts):
        if model.chat:
            context = model.encode(prompt.text, prompt.system)
        else:
            context = model.encode(prompt.text + ("" if text[:1].isspace() else separator))
        tokens = model.encode_suffix(text)
        longest_context = model.context_length - len(tokens)
        if tokens and longest_context > 0:
            requests[number] = Request(positive=context[-longest_context:], max_new_tokens=len(tokens))
            continuations[number] = tokens
    traces = Decoder(model).trace_texts(requests.values(), continuations.values()) if requests else []
    scored = {number: list(trace.positive) for number, trace in zip(requests, traces, strict=True)}
    return [scored.get(number, []) for number in range(len(texts))]
