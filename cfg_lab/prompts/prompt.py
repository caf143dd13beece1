"""The class `Prompt`."""

from __future__ import annotations

from dataclasses import dataclass

from cfg_lab.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """An instruction to follow, or the beginning of a text to continue.

    Attributes:
        id: identifies the prompt in every table. Unique in its prompt set.
        text: the instruction for a chat model; for other models the text to continue.
        negative: phrases to steer away from, with weights, such as "sad:0.8, bleak". The option
            `negatives=own` uses them. None means no phrases.
        system: system message for chat models. None means the model's default system message.
        references: good answers, for metrics that compare texts with good answers. A text is compared with
            each of them, and the best score counts. Empty means that no good answer is known.

    Raises:
        InputError: `references` is a single text.
    """

    id: str
    text: str
    negative: str | None = None
    system: str | None = None
    references: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.references, str):  # its letters would be taken as the references
            raise InputError(f"references must be a tuple of texts, got {self.references!r}")
