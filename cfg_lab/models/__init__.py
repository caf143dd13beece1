"""Language models from any source, with one interface. Only this package imports transformers."""

import warnings

# tqdm warns in a notebook without ipywidgets, but its progress bars are not shown anyway.
warnings.filterwarnings("ignore", message="IProgress not found")

from cfg_lab.models.classifier import load_classifier
from cfg_lab.models.embedder import Embedder, load_embedder
from cfg_lab.models.encoder_decoder import EncoderDecoder
from cfg_lab.models.evaluator import evaluator_model, load_evaluator
from cfg_lab.models.kept import keep_packaged_models
from cfg_lab.models.language_model import LanguageModel, PromptFormat
from cfg_lab.models.load import from_transformers, load_model
from cfg_lab.models.logits_processor import GuidanceLogitsProcessor
from cfg_lab.models.peak_memory import peak_memory
from cfg_lab.models.student import load_student

__all__ = [
    "Embedder",
    "EncoderDecoder",
    "GuidanceLogitsProcessor",
    "LanguageModel",
    "PromptFormat",
    "evaluator_model",
    "from_transformers",
    "keep_packaged_models",
    "load_classifier",
    "load_embedder",
    "load_evaluator",
    "load_model",
    "load_student",
    "peak_memory",
]
