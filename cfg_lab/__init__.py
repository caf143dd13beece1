"""cfg_lab: a laboratory for classifier-free guidance and negative prompts in language models.

The most used names can be imported from `cfg_lab`; `__all__` lists them. `__all__` also lists the
subpackages. All other names are in the subpackages, such as `cfg_lab.guidance.UnionGuidance`.

A module is imported when one of its names is used for the first time. `import cfg_lab` therefore takes
milliseconds; the first use of `cfg_lab.load_model` imports torch and transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cfg_lab import analysis, guidance, metrics, models, negatives, prompts
    from cfg_lab.decoding.completion import Completion
    from cfg_lab.decoding.decoder import Decoder
    from cfg_lab.decoding.request import Branch, Request
    from cfg_lab.decoding.sampling import BeamSearch, Greedy, Sampling
    from cfg_lab.errors import InputError
    from cfg_lab.guidance import ClassifierFreeGuidance
    from cfg_lab.models import GuidanceLogitsProcessor, load_model
    from cfg_lab.prompts import Prompt
    from cfg_lab.study.generation import Generated, generate
    from cfg_lab.study.notebook_html import results_html, row_html, token_html
    from cfg_lab.study.results import load_results, open_dataset

__version__ = "0.1.0"

_MODULES = {
    "BeamSearch": "decoding.sampling",
    "Branch": "decoding.request",
    "ClassifierFreeGuidance": "guidance",
    "Completion": "decoding.completion",
    "Decoder": "decoding.decoder",
    "Generated": "study.generation",
    "Greedy": "decoding.sampling",
    "GuidanceLogitsProcessor": "models",
    "InputError": "errors",
    "Prompt": "prompts",
    "Request": "decoding.request",
    "Sampling": "decoding.sampling",
    "generate": "study.generation",
    "load_model": "models",
    "load_results": "study.results",
    "open_dataset": "study.results",
    "results_html": "study.notebook_html",
    "row_html": "study.notebook_html",
    "token_html": "study.notebook_html",
}
"""Name -> module that defines the name, without the leading "cfg_lab."."""

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
    "load_model",
    "load_results",
    "metrics",
    "models",
    "negatives",
    "open_dataset",
    "prompts",
    "results_html",
    "row_html",
    "token_html",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"cfg_lab.{_MODULES[name]}"), name)
    if name in __all__:
        return import_module(f"cfg_lab.{name}")
    raise AttributeError(f"module 'cfg_lab' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
