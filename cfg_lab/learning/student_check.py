"""How near a student is to guidance on held-out prompts, beside its base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from cfg_lab.analysis.stats import mean_interval
from cfg_lab.decoding.decoder import Decoder
from cfg_lab.decoding.text_logits import GivenText, text_logits
from cfg_lab.learning.student_plan import StudentPlan
from cfg_lab.learning.student_texts import SampledText, lessons, sample
from cfg_lab.models import LanguageModel, load_student
from cfg_lab.study.progress import ProgressBar

_SAMPLE = 1_000_000
"""Number of the samples of the check. Those of training have smaller numbers."""


def check_student(plan: StudentPlan, console: Console) -> pd.DataFrame:
    """Compare a finished student with guidance on texts of held-out prompts.

    Returns:
        One row per scale, kind of texts and prompt: `scale`; `texts` ("plain" samples of the base, which the
        student did not write, or the "student"'s own samples); `prompt_id`; `prompt`; `tokens` (their
        number); `kl_base` and `kl_student`, the mean of KL(guided || base) and KL(guided || student) over the
        tokens of the text, in nats.
    """
    scales, prompts = plan.settings.check_scales, plan.held_out
    rows: list[dict[str, Any]] = []
    requests = [(prompt, plan.request(prompt, _SAMPLE, None)) for prompt in prompts]
    with ProgressBar(console, "checking", len(scales) * len(prompts) * 2, "texts") as bar:
        plain = sample(Decoder(plan.model), requests)
        for scale in scales:
            student = load_student(
                str(plan.folder),
                scale=scale,
                base=plan.training["model"]["name"],
                dtype=plan.training["model"]["dtype"],
                device=plan.training["model"]["device"],
            )
            own = sample(Decoder(student), requests)
            for kind, texts in {"plain": plain, "student": own}.items():
                for begin in range(0, len(texts), plan.settings.batch):
                    part = texts[begin : begin + plan.settings.batch]
                    rows += [
                        {"scale": scale, "texts": kind, **values}
                        for values in _divergences(plan, student, part, scale)
                    ]
                    bar.advance(len(part))
            student.unload()
    return pd.DataFrame(rows)


@torch.no_grad()
def _divergences(
    plan: StudentPlan, student: LanguageModel, texts: list[SampledText], scale: float
) -> list[Mapping[str, Any]]:
    """For each text its prompt, and the mean divergences of base and student from guidance."""
    given = [GivenText(((None, text.prompt.positive),), text.tokens) for text in texts]
    logits: list[list[Tensor]] = [[] for _ in texts]
    for parts in text_logits({None: student}, given):
        for part in parts:
            logits[part.number] += part.branches
    found: list[Mapping[str, Any]] = []
    for text, of_text, lesson in zip(texts, logits, lessons(plan, texts, scale), strict=True):
        guided = lesson.guided
        own = torch.cat(of_text)[:, : guided.shape[1]].log_softmax(-1)
        found.append(
            {
                "prompt_id": text.prompt.prompt.id,
                "prompt": text.prompt.prompt.text,
                "tokens": len(text.tokens),
                "kl_base": (guided.exp() * (guided - lesson.positive)).sum(-1).mean().item(),
                "kl_student": (guided.exp() * (guided - own)).sum(-1).mean().item(),
            }
        )
    return found


def check_table(check: pd.DataFrame) -> Table:
    """The check as a table for the console: means with 95 % intervals over prompts."""
    table = Table(header_style="bold", caption="nats per token, mean [95 % interval] over held-out prompts")
    for name in ("scale", "texts", "n", "KL(guided‖base)", "KL(guided‖student)"):
        table.add_column(name, justify="right")
    for (scale, kind), group in check.groupby(["scale", "texts"], sort=False):
        estimates = [
            mean_interval(group[column].tolist(), group["prompt"].tolist())
            for column in ("kl_base", "kl_student")
        ]
        numbers = [f"{e.mean:.4f} [{e.low:.4f}, {e.high:.4f}]" for e in estimates]
        table.add_row(f"{scale:g}", str(kind), str(len(group)), *numbers)
    return table
