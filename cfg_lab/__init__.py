"""cfg_lab: a laboratory for classifier-free guidance and negative prompts in language models.

Every public name is importable from here, and nothing is imported before it is used:
``import cfg_lab`` takes milliseconds, ``cfg_lab.load_model`` brings torch and transformers. The modules with
more names are attributes too: ``cfg_lab.guidance.UnionGuidance``, ``cfg_lab.analysis.summary``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cfg_lab import analysis, guidance, inline, metrics, models, negatives, prompts, sampling, stats
    from cfg_lab.decoding import Decoder
    from cfg_lab.generation import Generated, generate
    from cfg_lab.guidance import ClassifierFreeGuidance
    from cfg_lab.models import GuidanceLogitsProcessor, load_model
    from cfg_lab.records import Branch, Completion, InputError, Prompt, Request
    from cfg_lab.results import load_results
    from cfg_lab.sampling import BeamSearch, Greedy, Sampling

__version__ = "0.1.0"

_HOME = {
    "BeamSearch": "sampling",
    "Branch": "records",
    "ClassifierFreeGuidance": "guidance",
    "Completion": "records",
    "Decoder": "decoding",
    "Generated": "generation",
    "Greedy": "sampling",
    "GuidanceLogitsProcessor": "models",
    "InputError": "records",
    "Prompt": "records",
    "Request": "records",
    "Sampling": "sampling",
    "generate": "generation",
    "load_model": "models",
    "load_results": "results",
}

__all__ = [
    "BeamSearch",
    "Branch",
    "ClassifierFreeGuidance",
    "Completion",
    "Decoder",
    "Generated",
    "Greedy",
    "GuidanceLogitsProcessor",
    "InputError",
    "Prompt",
    "Request",
    "Sampling",
    "analysis",
    "generate",
    "guidance",
    "inline",
    "load_model",
    "load_results",
    "metrics",
    "models",
    "negatives",
    "prompts",
    "sampling",
    "stats",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"cfg_lab.{_HOME[name]}"), name)
    if name in __all__:
        return import_module(f"cfg_lab.{name}")
    raise AttributeError(f"module 'cfg_lab' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
