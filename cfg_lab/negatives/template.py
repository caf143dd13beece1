"""Templates of negative contexts: text with placeholders in braces."""

from __future__ import annotations

import re


def fill_template(template: str, values: dict[str, str]) -> str:
    """The template with every placeholder replaced by its value. All other braces stay as they are.

    `str.format` would not do: templates, prompts and phrases may hold braces of their own. A value is
    inserted as it is, also where it looks like a placeholder.

    >>> fill_template("{prompt} Not {this}.", {"prompt": "Use {prompt}."})
    'Use {prompt}. Not {this}.'
    """
    names = "|".join(map(re.escape, values))
    return re.sub(rf"\{{({names})\}}", lambda match: values[match[1]], template)
