"""Templates of prompts and of negative contexts: text with placeholders in braces."""

from __future__ import annotations

import re


def fill_template(template: str, values: dict[str, str]) -> str:
    r"""The template with every placeholder replaced by its value. All other braces stay as they are.

    `str.format` cannot be used, because templates, prompts and phrases may contain other braces. A value is
    inserted unchanged, even if it contains a placeholder. In the template a backslash with an n after it is a
    line break, because an override of Hydra cannot hold a line break.

    >>> fill_template("{prompt} Not {this}.", {"prompt": "Use {prompt}."})
    'Use {prompt}. Not {this}.'
    >>> fill_template(r"Go on:\n{prompt}", {"prompt": r"C:\new"})
    'Go on:\nC:\\new'
    """
    names = "|".join(map(re.escape, values))
    lines = template.replace(r"\n", "\n")
    return re.sub(rf"\{{({names})\}}", lambda match: values[match[1]], lines)
