"""cfg_lab: a laboratory for classifier-free guidance and negative prompts in language models.

Every public name is importable from here, and nothing is imported before it is used:
``import cfg_lab`` takes milliseconds, ``cfg_lab.load_model`` brings torch and transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cfg_lab.decoding import Decoder
    from cfg_lab.generation import generate
    from cfg_lab.guidance import ClassifierFreeGuidance
    from cfg_lab.models import GuidanceLogitsProcessor, load_model
    from cfg_lab.records import Branch, Completion, Prompt, Request
    from cfg_lab.sampling import BeamSearch, Greedy, Sampling
    from cfg_lab.store import load_results

__version__ = "0.1.0"

_HOME = {
    "BeamSearch": "sampling",
    "Branch": "records",
    "ClassifierFreeGuidance": "guidance",
    "Completion": "records",
    "Decoder": "decoding",
    "Greedy": "sampling",
    "GuidanceLogitsProcessor": "models",
    "Prompt": "records",
    "Request": "records",
    "Sampling": "sampling",
    "generate": "generation",
    "load_model": "models",
    "load_results": "store",
}

__all__ = [
    "BeamSearch",
    "Branch",
    "ClassifierFreeGuidance",
    "Completion",
    "Decoder",
    "Greedy",
    "GuidanceLogitsProcessor",
    "Prompt",
    "Request",
    "Sampling",
    "generate",
    "load_model",
    "load_results",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cfg_lab' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"cfg_lab.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
