"""A LoRA that is being trained: made, set to a strength, saved and merged by peft."""

from __future__ import annotations

import copy
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor, nn

from cfg_lab.models.checkpoint.adapter import set_strength


def lora_settings(rank: int) -> Any:
    """The settings of a LoRA on all linear layers but the output layer, without dropout."""
    return peft.LoraConfig(r=rank, lora_alpha=rank, target_modules="all-linear", task_type="CAUSAL_LM")


class TrainedLora:
    """A transformers model with a LoRA on all its linear layers but the output layer.

    At first the LoRA adds nothing: the model equals its base.

    Args:
        module: the transformers model. It is changed, and only the LoRA is trained.
        rank: rank of the LoRA's matrices.
        seed: seed of their first values.
    """

    def __init__(self, module: Any, *, rank: int, seed: int) -> None:
        settings = lora_settings(rank)
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of transformers, for code of peft
            torch.manual_seed(seed)
            self.model: Any = peft.get_peft_model(module, settings)
        self.model.eval()  # the LoRA has no dropout, and the base must not have any

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The trained parameters, always in the same order."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def set_strength(self, strength: float) -> None:
        """Set the factor of what the LoRA adds; 0 gives the base."""
        set_strength(self.model, strength)

    def logits(self, texts: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[Tensor]:
        """The logits that predict the tokens of each text, [tokens, vocab], float32, with gradients.

        Args:
            texts: for each text its context and its tokens; at least one token each.
        """
        rows = [(*context, *tokens[:-1]) for context, tokens in texts]
        longest = max(map(len, rows))
        # Attention is causal, so padding on the right changes nothing before it.
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=self.model.device)
        begin = min(len(context) for context, _ in texts) - 1
        logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=longest - begin).logits.float()
        return [
            of_row[len(context) - 1 - begin :][: len(tokens)]
            for of_row, (context, tokens) in zip(logits, texts, strict=True)
        ]

    def state(self) -> dict[str, Tensor]:
        """The trained values by name."""
        values: Mapping[str, Tensor] = peft.get_peft_model_state_dict(self.model, save_embedding_layers=False)
        return {name: value.detach().clone() for name, value in values.items()}

    def load_state(self, values: Mapping[str, Tensor]) -> None:
        """Set the trained values to those of `state`."""
        peft.set_peft_model_state_dict(self.model, dict(values))

    def merged(self, strength: float) -> Any:
        """A copy of the transformers model with the LoRA added to its weights."""
        self.set_strength(strength)
        return copy.deepcopy(self.model).merge_and_unload(safe_merge=True)

    def save(self, folder: Path, files: Mapping[str, str]) -> None:
        """Write the LoRA in the format of peft, and further text files; the folder is whole or missing.

        Args:
            folder: the folder to create.
            files: name -> content.
        """
        self.set_strength(1)
        unfinished = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        self.model.save_pretrained(unfinished, save_embedding_layers=False)
        (unfinished / "README.md").unlink(missing_ok=True)  # peft's card has no content
        for name, content in files.items():
            (unfinished / name).write_text(content, encoding="utf-8")
        unfinished.rename(folder)
