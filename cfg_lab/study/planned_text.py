"""One text of a cell before it is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from cfg_lab.decoding.request import Request
from cfg_lab.prompts import Prompt


@dataclass(frozen=True, kw_only=True, eq=False)
class PlannedText:
    """One text of a cell before it is decoded.

    Attributes:
        prompt: the prompt. If the cell has negative phrases, they replace the prompt's `negative`.
        request: the request to the decoder.
        completion_id: id of the completion, from `Request.id`.
    """

    prompt: Prompt
    request: Request
    completion_id: str

    @property
    def score_id(self) -> str:
        """The id under which the scores of the text are stored.

        Scores can depend on the prompt's reference and negative. Two texts with the same completion but
        different references or negatives therefore have different score ids.
        """
        if not self.prompt.references and self.prompt.negative is None:
            return self.completion_id
        reference, *others = self.prompt.references or (None,)
        compared_with = (reference, self.prompt.negative, *others)
        return f"{self.completion_id}-{blake2b(repr(compared_with).encode(), digest_size=6).hexdigest()}"
