"""What a negative is: it gives a prompt its negative contexts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

from cfg_lab.decoding.request import Branch
from cfg_lab.prompts import Prompt


class Tokenizing(Protocol):
    """What a negative needs of a model."""

    @property
    def name(self) -> str: ...
    @property
    def bos(self) -> tuple[int, ...]: ...
    @property
    def chat(self) -> bool: ...
    @property
    def vocabulary(self) -> dict[str, int]: ...
    def encode(self, text: str, system: str | None = None) -> tuple[int, ...]: ...


class Negative(ABC):
    """Gives a prompt its negative branches under a model; no branches leave it unguided."""

    @abstractmethod
    def branches(self, prompt: Prompt, model: Tokenizing) -> tuple[Branch, ...]: ...

    def other_models(self) -> Mapping[str, Any]:
        """Further models that the branches name, by fingerprint."""
        return {}
