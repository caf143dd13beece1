"""Guided decoding: token ids in, token ids out. Knows no text and no files."""

from cfg_lab.decoding.batch import CausalModel, NotANumberError
from cfg_lab.decoding.columns import Columns
from cfg_lab.decoding.decoder import Decoder

__all__ = ["CausalModel", "Columns", "Decoder", "NotANumberError"]
