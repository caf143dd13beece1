"""Negatives: what guidance steers away from, as negative contexts of each prompt.

The choice of the negative context changes the method. transformers takes the last prompt token. Other work
takes the empty prompt, the prompt with added text, only a list of words, or the prompt read by another model.
Each choice is a named option here. The token ids of the context are kept with every completion.
"""

from cfg_lab.negatives.file_negative import FileNegative
from cfg_lab.negatives.model_negative import ModelNegative
from cfg_lab.negatives.named_negative import NamedNegative, NoNegative
from cfg_lab.negatives.negative import Negative, PromptEncoder
from cfg_lab.negatives.opposite_negative import OppositeNegative
from cfg_lab.negatives.phrase_negative import DEFAULT_TEMPLATE, TEMPLATES, Mode, PhraseNegative
from cfg_lab.negatives.suffix_negative import SuffixNegative
from cfg_lab.prompts.phrases import Phrase, parse_phrases

__all__ = [
    "DEFAULT_TEMPLATE",
    "TEMPLATES",
    "FileNegative",
    "Mode",
    "ModelNegative",
    "NamedNegative",
    "Negative",
    "NoNegative",
    "OppositeNegative",
    "Phrase",
    "PhraseNegative",
    "PromptEncoder",
    "SuffixNegative",
    "parse_phrases",
]
