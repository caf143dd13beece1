"""Prefixes that branches of waiting requests start with: computed once, and freed when none of them waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cfg_lab.decoding.model import CausalModel, Context
from cfg_lab.decoding.prefill import prefill_contexts
from cfg_lab.decoding.prefix import Prefix


class SavedPrefixes:
    """The prefixes of one model. The prefix of a context leaves out its last token: the next step reads it.

    Args:
        model: computes the prefixes.
    """

    def __init__(self, model: CausalModel) -> None:
        self.model = model
        self._waiting: Counter[Context] = Counter()  # number of waiting branches that start with a prefix
        self._prefixes: dict[Context, Prefix] = {}

    def expect(self, context: Context) -> None:
        """One more branch waits, which starts with this context."""
        self._waiting[context.without_last_token] += 1

    def of(self, contexts: Sequence[Context]) -> list[Prefix]:
        """The prefix of each context. Those that are not there yet are computed, each once."""
        beginnings = [context.without_last_token for context in contexts]
        self._prefixes |= prefill_contexts(self.model, set(beginnings) - self._prefixes.keys())
        return [self._prefixes[beginning] for beginning in beginnings]

    def release(self, context: Context, branches: int = 1) -> None:
        """Some branches that start with this context do not wait any more. Free its prefix after the last."""
        beginning = context.without_last_token
        self._waiting[beginning] -= branches
        if not self._waiting[beginning]:
            self._prefixes.pop(beginning, None)

    def save(self, context: Context, prefix: Prefix) -> None:
        """Keep the prefix of a context that a row has read."""
        self._prefixes[context.without_last_token] = prefix
