"""Plans the texts of a cell: makes and checks the request of each text before anything is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cfg_lab.decoding.decoder import Decoder
from cfg_lab.decoding.request import Request
from cfg_lab.decoding.row_limit import MaxRows
from cfg_lab.errors import InputError
from cfg_lab.models import LanguageModel
from cfg_lab.negatives import Negative
from cfg_lab.prompts import Prompt
from cfg_lab.study.cell import Cell
from cfg_lab.study.planned_text import PlannedText
from cfg_lab.study.stop_strings import stops_of


def plan(cell: Cell, model: LanguageModel, max_rows: MaxRows) -> Iterator[PlannedText]:
    """Plan the texts of a cell: one text per prompt and sample. Each is checked against the model's limits.

    Args:
        cell: the cell to plan.
        model: the cell's model.
        max_rows: largest number of rows of the decoder's batch, or "auto".

    Raises:
        InputError: a prompt does not fit into the model or the batch, or the negative contexts of a prompt
            cannot be made. The message names the prompt. Or a stop string cannot be used with the model.
    """
    stop_ids, stop_when = stops_of(cell.stop, model)
    # Without random sampling all samples of a prompt are equal, so there is only one, whatever `samples` is.
    samples = cell.samples if cell.sampling.random else 1
    decoder = Decoder(model, max_rows, cell.negatives.other_models())
    fingerprint = model.fingerprint  # an error of the weights is not an error of a prompt
    for set_prompt in cell.prompts:
        prompt = _with_phrases(set_prompt, cell.negatives)
        try:
            positive = model.encode(prompt.text, prompt.system)
            negatives = cell.negatives.branches(prompt, model)
            for sample in range(samples):
                request = Request(
                    positive=positive,
                    negatives=negatives,
                    guidance=cell.guidance,
                    sampling=cell.sampling,
                    max_new_tokens=cell.max_new_tokens,
                    stop_ids=stop_ids,
                    stop_when=stop_when,
                    seed=cell.seed,
                    sample=sample,
                    top=cell.top,
                )
                decoder.check(request)
                completion_id = request.id(fingerprint)
                yield PlannedText(prompt=prompt, request=request, completion_id=completion_id)
        except InputError as error:
            raise InputError(f"prompt {prompt.id!r}: {error}") from error


def _with_phrases(prompt: Prompt, negatives: Negative) -> Prompt:
    """The prompt as it is stored and scored.

    If the cell has negative phrases, they replace the negative phrases of the prompt.
    """
    phrases = negatives.phrases_for(prompt)
    return prompt if phrases is None else replace(prompt, negative=phrases)
