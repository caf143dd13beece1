"""Templates of negative contexts: text with placeholders in braces."""

from __future__ import annotations

import re


def fill_template(template: str, values: dict[str, str]) -> str:
    """The template with every placeholder replaced by its value. All other braces stay as they are.

    `str.format` cannot be used, because templates, prompts and phrases may contain other braces. A value is
    inserted unchanged, even if it contains a placeholder.

    >>> fill_template("{prompt} Not {this}.", {"prompt": "Use {prompt}."})
    'Use {prompt}. Not {this}.'
    """
    names = "|".join(map(re.escape, values))
    return re.sub(rf"\{{({names})\}}", lambda match: values[match[1]], template)
