"""One text, for notebooks and first tries."""

from __future__ import annotations

from cfg_lab.decoding import Decoder
from cfg_lab.guidance import ClassifierFreeGuidance
from cfg_lab.models import LanguageModel
from cfg_lab.negatives import Mode, NamedNegative, PhraseNegative
from cfg_lab.records import InputError, Prompt, Request
from cfg_lab.sampling import Sampler, Sampling


def generate(
    model: LanguageModel,
    prompt: str,
    *,
    negative: str | None = None,
    scale: float = 1.5,
    template: str = "default",
    mode: Mode = "joined",
    sampling: Sampler | None = None,
    max_new_tokens: int = 128,
    seed: int = 0,
    system: str | None = None,
) -> str:
    """The model's text for a prompt, guided away from a negative prompt.

    Args:
        model: from `load_model` or `cfg_lab.models.from_transformers`.
        prompt: an instruction for a chat model, else a text to continue.
        negative: weighted phrases, "boring:0.8, cliche"; None is plain guidance, away from the empty prompt.
        scale: guidance scale; 1 is off, higher is stronger.
        template, mode: how phrases become negative contexts, see `cfg_lab.negatives.PhraseNegative`.
        sampling: None is nucleus sampling, temperature 0.8 and top_p 0.95; `Greedy()` takes the likeliest.
        seed: the same seed gives the same text.
        system: system message, for chat models.
    """
    if not prompt.strip():
        raise InputError(f"prompt must not be empty, got {prompt!r}")
    asked = Prompt(id="prompt", text=prompt, negative=negative, system=system)
    chosen = (
        NamedNegative(variant="empty") if negative is None else PhraseNegative(template=template, mode=mode)
    )
    request = Request(
        positive=model.encode(prompt, system),
        negatives=chosen.branches(asked, model),
        guidance=ClassifierFreeGuidance(scale=scale),
        sampling=sampling or Sampling(temperature=0.8, top_p=0.95),
        max_new_tokens=max_new_tokens,
        stop_ids=model.stop_ids,
        seed=seed,
    )
    (completion,) = Decoder(model).decode([request])
    return model.decode(completion.tokens)
