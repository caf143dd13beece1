"""Prompts, and where a prompt set comes from: a config, a file, or a dataset."""

from cfg_lab.prompts.phrases import Phrase, join_phrases, parse_phrases
from cfg_lab.prompts.prompt import Prompt
from cfg_lab.prompts.sources import from_dataset, from_file, inline

__all__ = ["Phrase", "Prompt", "from_dataset", "from_file", "inline", "join_phrases", "parse_phrases"]
