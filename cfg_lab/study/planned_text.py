"""One text of a cell, before it is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from cfg_lab.decoding.request import Request
from cfg_lab.prompts import Prompt


@dataclass(frozen=True, kw_only=True, eq=False)
class PlannedText:
    """One text of a cell: its prompt, the request that makes it, and the id of its completion.

    `prompt.negative` is what the text is steered away from: the cell's phrases where the cell has some.
    """

    prompt: Prompt
    request: Request
    completion_id: str

    @property
    def score_id(self) -> str:
        """The id that scores are kept under. The same text with another reference or negative has another."""
        compared_with = (self.prompt.reference, self.prompt.negative)
        if compared_with == (None, None):
            return self.completion_id
        return f"{self.completion_id}-{blake2b(repr(compared_with).encode(), digest_size=6).hexdigest()}"
