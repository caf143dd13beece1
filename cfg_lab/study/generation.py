"""Generates one text, for notebooks and first experiments."""

from __future__ import annotations

from typing import Any, Self

from cfg_lab.decoding.completion import Completion
from cfg_lab.decoding.decoder import Decoder
from cfg_lab.decoding.request import Request
from cfg_lab.decoding.sampling import BeamSearch, Sampler, nucleus_sampling
from cfg_lab.errors import InputError
from cfg_lab.guidance import ClassifierFreeGuidance, Guidance
from cfg_lab.models import LanguageModel
from cfg_lab.negatives import Mode, NamedNegative, PhraseNegative
from cfg_lab.prompts import Prompt
from cfg_lab.study.notebook_html import token_html


class Generated(str):
    """A generated text: a str with its tokens and trace. A notebook shows how guidance changed each token.

    Texts that are derived from a Generated (a slice, an upper-case copy) are plain strings.

    Attributes:
        completion: tokens, trace and finish reason.
        pieces: the text of each token. The last token can be a stop token; the str does not contain its text.
        alternatives: distribution ("guided", "positive" or "negative") -> a list with one entry per step.
            Each entry is a list of the step's likeliest tokens: {"token": id, "piece": text, "log_prob":
            nats}.
        others: the next best texts of a beam search with n_best above 1, best first.
    """

    completion: Completion
    pieces: tuple[str, ...]
    alternatives: dict[str, list[list[dict[str, Any]]]]
    others: tuple[Self, ...]

    @classmethod
    def of(cls, completion: Completion, model: LanguageModel) -> Self:
        """Make the generated text from a completion, and from the model that decoded this completion."""
        text = cls(model.decode(completion.text_tokens))
        text.completion = completion
        text.pieces = tuple(map(model.piece, completion.tokens))
        text.alternatives = completion.trace.alternatives_as_text(model.piece)
        text.others = tuple(cls.of(other, model) for other in completion.others)
        return text

    def _repr_html_(self) -> str:
        return token_html(self.pieces, self.completion.trace.columns, self.alternatives)


def generate(
    model: LanguageModel,
    prompt: str,
    *,
    negative: str | None = None,
    scale: float | None = None,
    guidance: Guidance | None = None,
    template: str = "default",
    mode: Mode = "joined",
    sampling: Sampler | BeamSearch | None = None,
    max_new_tokens: int = 64,
    seed: int = 0,
    system: str | None = None,
    top: int = 5,
) -> Generated:
    """Generate a text for a prompt, guided away from a negative prompt.

    Args:
        model: a model from `load_model` or `cfg_lab.models.from_transformers`.
        prompt: an instruction for a chat model, a text to continue for other models.
        negative: weighted phrases such as "boring:0.8, cliche". None means that the empty prompt is the
            negative.
        scale: scale of classifier-free guidance. 1 is off, larger is stronger. None means 1.5.
        guidance: a guidance rule that has its own scale, such as `cfg_lab.guidance.UnionGuidance(scale=2)`.
            None means classifier-free guidance with `scale`.
        template: name of the template that makes a negative context from phrases, see
            `cfg_lab.negatives.PhraseNegative`.
        mode: whether all phrases form one negative context or each phrase forms its own, see
            `cfg_lab.negatives.PhraseNegative`.
        sampling: how tokens are chosen. `Greedy()` takes the likeliest token, `BeamSearch()` searches for
            the likeliest text. None means nucleus sampling with temperature 0.8 and top_p 0.95.
        max_new_tokens: largest number of new tokens, at least 1.
        seed: seed of the sampling noise. Equal seeds and arguments give equal texts.
        system: system message, for chat models.
        top: number of likeliest tokens to keep for each step and each distribution (guided, positive,
            negative); 0 keeps none.

    Raises:
        InputError: an argument is wrong. The message says what would be right.
    """
    if not prompt.strip():
        raise InputError(f"prompt must not be empty, got {prompt!r}")
    negatives = (
        NamedNegative(variant="empty") if negative is None else PhraseNegative(template=template, mode=mode)
    )
    model.warn_about_generation_settings()
    request = Request(
        positive=model.encode(prompt, system),
        negatives=negatives.branches(
            Prompt(id="prompt", text=prompt, negative=negative, system=system), model
        ),
        guidance=_rule(scale, guidance),
        sampling=sampling or nucleus_sampling(),
        max_new_tokens=max_new_tokens,
        stop_ids=model.stop_ids,
        seed=seed,
        top=top,
    )
    (completion,) = Decoder(model).decode([request])
    return Generated.of(completion, model)


def _rule(scale: float | None, guidance: Guidance | None) -> Guidance:
    """Make the guidance rule for `generate`. At most one of `scale` and `guidance` may be given."""
    if guidance is None:
        return ClassifierFreeGuidance(scale=1.5 if scale is None else scale)
    if isinstance(guidance, type) or not hasattr(guidance, "guide"):
        raise InputError(
            f"guidance must be a rule, such as cfg_lab.guidance.UnionGuidance(scale=2), got {guidance!r}"
        )
    if scale is not None:
        raise InputError(
            f"scale is {scale!r} beside guidance, which has a scale of its own; leave scale out and write "
            f"guidance={type(guidance).__name__}(scale={scale!r}, …)"
        )
    return guidance
