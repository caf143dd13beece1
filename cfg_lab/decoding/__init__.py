"""Guided decoding: token ids in, token ids out. Knows no text and no files."""

from cfg_lab.decoding.columns import Columns, Memory
from cfg_lab.decoding.decoder import Decoder
from cfg_lab.decoding.model import CausalModel, NotANumberError

__all__ = ["CausalModel", "Columns", "Decoder", "Memory", "NotANumberError"]
