"""Negative prompts: weighted phrases, the template that puts them into a context, and named variants.

What negative context a prompt gets is a published choice and changes the method: transformers' default is
the last prompt token, others use the empty prompt, the base prompt with an addition, or a bare list of
words. Each is a named option here, and the token ids used are kept with every completion.
"""

from cfg_lab.negatives.model_negative import ModelNegative
from cfg_lab.negatives.named_negative import NamedNegative, NoNegative
from cfg_lab.negatives.negative import Negative, Tokenizing
from cfg_lab.negatives.phrase_negative import DEFAULT_TEMPLATE, TEMPLATES, Mode, PhraseNegative
from cfg_lab.negatives.phrases import Phrase, parse_phrases

__all__ = [
    "DEFAULT_TEMPLATE",
    "TEMPLATES",
    "Mode",
    "ModelNegative",
    "NamedNegative",
    "Negative",
    "NoNegative",
    "Phrase",
    "PhraseNegative",
    "Tokenizing",
    "parse_phrases",
]
