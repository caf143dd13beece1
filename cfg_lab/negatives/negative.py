"""The interface of negatives: a negative gives each prompt its negative contexts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

from cfg_lab.decoding.request import Branch
from cfg_lab.prompts import Prompt


class PromptEncoder(Protocol):
    """What a negative needs of a model: its name, and its methods that turn text into token ids.

    `cfg_lab.models.LanguageModel` is a prompt encoder.
    """

    @property
    def name(self) -> str:
        """The name of the model in error messages."""
        ...

    @property
    def bos(self) -> tuple[int, ...]:
        """The beginning-of-sequence token."""
        ...

    @property
    def chat(self) -> bool:
        """Whether prompts are rendered with the model's chat template."""
        ...

    @property
    def vocabulary(self) -> dict[str, int]:
        """All tokens of the tokenizer: token -> id."""
        ...

    def encode(self, text: str, system: str | None = None) -> tuple[int, ...]:
        """Token ids of a prompt, with the chat template and special tokens where the model has them."""
        ...

    def encode_suffix(self, text: str) -> tuple[int, ...]:
        """Token ids of a text that continues a context, without chat template and special tokens."""
        ...


class Negative(ABC):
    """Gives each prompt its negative branches. A prompt without branches is decoded unguided."""

    @abstractmethod
    def branches(self, prompt: Prompt, model: PromptEncoder) -> tuple[Branch, ...]:
        """The negative branches of a prompt. Their contexts are token ids of the model.

        Raises:
            InputError: the prompt or the model lacks something that this negative needs.
        """

    @property
    def content(self) -> str:
        """What this negative has read from files, as far as its contexts depend on it. Empty without files.

        It is part of the identity of cells: a file can change while its path stays.
        """
        return ""

    def phrases_for(self, prompt: Prompt) -> str | None:
        """The phrases that replace the prompt's own `negative` in results and metrics; None keeps those."""
        return None

    def other_models(self) -> Mapping[str, Any]:
        """The models that run negative branches, without the generating model: fingerprint -> model."""
        return {}
