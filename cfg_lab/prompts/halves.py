"""Two halves of a prompt set: one to choose with, and one to report on what was chosen.

A setting that was chosen on some prompts looks better on these prompts than on others. So what is chosen
(a scale, a negative prompt, a trained policy) must be reported on prompts that did not take part.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal, cast, get_args

from cfg_lab.errors import InputError
from cfg_lab.prompts.prompt import Prompt

Half = Literal["selection", "held_out"]


def check_half(half: object) -> None:
    """Raise InputError if `half` is neither None nor the name of a half."""
    if half is not None and half not in get_args(Half):
        raise InputError(f"prompts.half must be selection, held_out or null, got {half!r}")


def half_of(prompt: Prompt) -> Half:
    """The half that a prompt belongs to.

    A hash of its text decides. So the half of a prompt does not depend on the other prompts of its set, on
    their order, or on its id, negative and system message: no prompt that took part in a choice can be in the
    report, also if the set grows in between.
    """
    # The NUL is a part of what the recorded studies were split by.
    digest = blake2b(f"\0{prompt.text}".encode(), digest_size=1, person=b"held out").digest()
    return cast("Half", get_args(Half)[digest[0] & 1])
