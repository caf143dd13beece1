"""Pairs of texts that say the same formally and casually, from packages for steering language models."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

from cfg_lab.packages import Package, fetch

DEEPSTEER = Package(
    requirement="deepsteer==0.2.0",
    sha256="dd57e21421a0293bcc25d6b86fdf6a6d1ac4bf7eb797a7e5f84ccae5c17cd426",
    size="1 MB",
)
ROTALABS = Package(
    requirement="rotalabs-steer==1.2.0",
    sha256="7892f1b6d5aa16b6b36291b1a4d7e83f3ab5f44b90bc7de72e76061cca87bd8a",
    size="1 MB",
)
SAKLAS = Package(
    requirement="saklas==5.3.0",
    sha256="5dab7881d8cb4a6426623d537185396ee4b08c6063fb2f6a2affc958607fd687",
    size="3 MB",
)
Pairs = list[tuple[str, str]]
"""Each pair is the formal text and the casual one."""


def sentences(folder: Path) -> Pairs:
    """80 pairs of single sentences, composed for deepsteer."""
    return literal(fetch(DEEPSTEER, folder) / "deepsteer/datasets/register_pairs.py", "REGISTER_PAIRS")


def answers(folder: Path) -> dict[str, Pairs]:
    """Pairs of answers to the same question, by source.

    29 pairs were composed for rotalabs-steer; a language model wrote 48 pairs for saklas.
    """
    dialogues = literal(
        fetch(ROTALABS, folder) / "rotalabs_steer/datasets/formality_pairs.py", "FORMALITY_PAIRS"
    )
    nodes = fetch(SAKLAS, folder) / "saklas/data/manifolds/formal.casual/nodes"
    formal, casual = (json.loads((nodes / f"{side}.json").read_text()) for side in ("00_formal", "01_casual"))
    return {
        "rotalabs-steer": [(answer(pair["positive"]), answer(pair["negative"])) for pair in dialogues],
        "saklas": list(zip(formal, casual, strict=True)),
    }


def answer(dialogue: str) -> str:
    """The assistant's text in "User: … Assistant: …"."""
    return dialogue.split("Assistant:", 1)[1]


def literal(path: Path, name: str) -> Any:
    """The literal value that a Python file assigns to a name. The file is not run.

    Raises:
        LookupError: the file assigns nothing to the name.
    """
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                return ast.literal_eval(value)
            case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value) if target == name:
                return ast.literal_eval(value)
            case _:
                pass
    raise LookupError(f"{path} assigns nothing to {name}")
