"""Joins the page's ES modules into one script, because a page opened from disk cannot import files.

A browser refuses `import` between files opened with file://, so the modules in js/ must be put into the page.
No Node.js is needed for this. Each module becomes a function that returns its exports:

    import { round } from "./geometry.js";     const { round } = module_geometry;
    export const twice = (x) => round(2 * x);  const twice = (x) => round(2 * x);
                                               return { twice };

As a function, each module keeps its own scope. A module runs once, after the modules that it imports. Modules
must follow three rules. A module that breaks a rule is an error:

1. Modules do not import each other in a circle.
2. Only `import { a, b as c } from "./module.js"` and `export const|function|class|async function` are used.
3. An exported value is never assigned again. `export let` is an error for that reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parent / "js"
ENTRY = "main"

_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:const|function|async function|class) (\w+))", re.MULTILINE)
_UNSUPPORTED = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)


def page_script() -> str:
    """Return the script of the page, made of the modules in js/."""
    return join_modules(
        {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.js"))}, ENTRY
    )


def join_modules(sources: Mapping[str, str], entry: str) -> str:
    """Return one script that runs `entry` after all modules that it imports directly or indirectly.

    Args:
        sources: source text by module name.
        entry: name of the module to run.

    Raises:
        ValueError: a module is missing, modules import each other in a circle, or a line has a form of import
            or export that is not supported.
    """
    ordered: list[str] = []
    _visit(entry, sources, ordered, path=())
    return '"use strict";\n' + "".join(_wrapped(name, sources[name]) for name in ordered)


def _visit(name: str, sources: Mapping[str, str], ordered: list[str], path: tuple[str, ...]) -> None:
    """Append to `ordered` the names of the modules that module `name` imports, and then `name`.

    Modules that are in `ordered` already are skipped.
    """
    if name in path:
        raise ValueError(f"page scripts import each other in a circle: {' -> '.join((*path, name))}")
    if name not in sources:
        raise ValueError(f"{path[-1] if path else 'the page'} imports {name}.js, which does not exist")
    for _, imported in _IMPORT.findall(sources[name]):
        if imported not in ordered:
            _visit(imported, sources, ordered, (*path, name))
    if name not in ordered:
        ordered.append(name)


def _wrapped(name: str, source: str) -> str:
    """Return JavaScript code that runs a module as a function.

    The code stores the function's result, the module's exports, in the constant module_<name>.
    """
    exported = [found[1] for found in _EXPORT.findall(source)]
    body = _IMPORT.sub(
        lambda found: f"const {{{found[1].replace(' as ', ': ')}}} = module_{found[2]};\n", source
    )
    body = _EXPORT.sub(r"\1", body)
    if unsupported := _UNSUPPORTED.search(body):
        raise ValueError(f"{name}.js: this form is not supported: {unsupported[0]}")
    return f"const module_{name} = (() => {{\n{body}return {{ {', '.join(exported)} }};\n}})();\n"
