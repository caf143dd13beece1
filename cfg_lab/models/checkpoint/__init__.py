"""Models in files: a local folder, or a repository of the Hugging Face hub.

`checkpoint` loads a model, with all that changes it: an adapter, quantization, left-out layers. `weights`
finds and checks the files. `fingerprint` identifies their content.
"""

from cfg_lab.models.checkpoint.checkpoint import Checkpoint

__all__ = ["Checkpoint"]
