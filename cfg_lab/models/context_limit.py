"""The largest number of tokens that a model can read, from its text config."""

from __future__ import annotations

from typing import Any, NamedTuple

NO_LIMIT = 1 << 30
"""The limit of a model whose config sets none."""

_KEYS = (
    "max_position_embeddings",
    "max_seq_len",
    "model_max_length",
    "keep_window_size",  # Doge leaves tokens out of longer contexts, other ones with a cache than without
)


class ContextLimit(NamedTuple):
    """The largest number of tokens in a context.

    Attributes:
        tokens: the number.
        key: the key of the config that sets it, for messages.
    """

    tokens: int
    key: str


def context_limit(config: Any) -> ContextLimit:
    """The limit of a text config.

    Rotary positions of the types "longrope" and "dynamic" use other angles for all positions of a context
    that is longer than a threshold. transformers chooses the angles for a whole batch at once, so a long row
    would change the rows beside it. A row that grows beyond the threshold would keep keys with the wrong
    angles. So the threshold is the limit. That of "dynamic" is max_position_embeddings.
    """
    limits = [ContextLimit(NO_LIMIT, "no limit")]
    for key in _KEYS:
        positions: int | None = getattr(config, key, None)
        if positions is not None and positions > 0:  # XLNet has -1
            limits.append(ContextLimit(positions, key))
    parameters: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    # The parameters are either those of the whole model, or those of each type of layer.
    parts: list[dict[str, Any]] = [part for part in parameters.values() if isinstance(part, dict)]
    for rope in (parameters, *parts):
        threshold: int | None = rope.get("original_max_position_embeddings")
        if rope.get("rope_type") == "longrope" and threshold is not None:
            limits.append(
                ContextLimit(threshold, "rope_parameters.original_max_position_embeddings of longrope")
            )
    return min(limits)
