"""Checks of what a user gives to the lm-eval model."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from cfg_lab.errors import InputError
from cfg_lab.models import LanguageModel
from cfg_lab.negatives import Negative

_CACHE_KEY = "cfg_lab settings"


def check_whole(name: str, value: Any, low: int, high: int = 2**63 - 1) -> None:
    """Raise InputError if an argument is not a whole number in a range."""
    if type(value) is not int or not low <= value <= high:
        raise InputError(f"{name} must be a whole number from {low} to {high}, got {value!r}")


def check_objects(model: Any, guidance: Any, negatives: Any) -> None:
    """Raise InputError if an argument of `CfgLabModel` is an object of a wrong kind."""
    if not isinstance(model, LanguageModel):
        raise InputError(
            "model must be a name, or a model from cfg_lab.load_model or cfg_lab.models.from_transformers, "
            f"got a value of type {type(model).__name__}"
        )
    if isinstance(guidance, type) or not (guidance is None or hasattr(guidance, "guide")):
        raise InputError(
            f"guidance must be a rule, such as cfg_lab.guidance.UnionGuidance(scale=2), got {guidance!r}"
        )
    if not isinstance(negatives, Negative | None):
        raise InputError(
            'negatives must be an object, such as cfg_lab.negatives.NamedNegative(variant="empty"), got '
            f"{negatives!r}"
        )


def claim_cache(cache: MutableMapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Check that a cache of lm-eval holds answers with these settings, and write them into an empty one.

    lm-eval looks answers up by their texts alone. So a cache belongs to one model with one guidance.

    Args:
        cache: answers by the hash of their request.
        settings: what determines the answers.

    Raises:
        InputError: the cache holds answers of another model or another guidance.
    """
    stored: Mapping[str, Any] = cache.get(_CACHE_KEY, {})
    changed = [name for name, value in settings.items() if stored.get(name) != value]
    if changed and len(cache):
        raise InputError(
            "use_cache names a cache with answers of another model or guidance (it differs in "
            f"{', '.join(changed)}); name another file"
        )
    cache[_CACHE_KEY] = settings
