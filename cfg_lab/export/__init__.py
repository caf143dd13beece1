"""Writes the texts of a results folder as a dataset of the `datasets` library, with a data card, and as CSV.

Texts are read and written a few cells at a time, so that a folder of a million texts needs little memory.
"""

from cfg_lab.export.write import export

__all__ = ["export"]
