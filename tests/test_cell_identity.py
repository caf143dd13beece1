"""Ids of cells and completions change when texts can change, and only then."""

from __future__ import annotations

import copy
import inspect
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, make_dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

import cfg_lab
from cfg_lab import Branch, Request, guidance
from cfg_lab.decoding import sampling
from cfg_lab.decoding.identity import canonical
from cfg_lab.errors import InputError, StoreError
from cfg_lab.options import CONFIG, option_names
from cfg_lab.prompts import written_out
from cfg_lab.report.write import report
from cfg_lab.score import run as score
from cfg_lab.study.build import SETTING_GROUPS, build_study, canonical_config
from cfg_lab.track.__main__ import run as track
from tests.cli import on, sweep

NESTED = [f"guidance/{path.name}" for path in sorted((CONFIG / "guidance").iterdir()) if path.is_dir()]
OPTIONS = [(group, option) for group in (*SETTING_GROUPS, *NESTED) for option in option_names(group)]


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        return compose("sweep", overrides=list(overrides), return_hydra_config=True)


def node_of(group: str, option: str) -> Any:
    """The config node of an option as plain data."""
    several = group == "guidance/modifiers"  # a group of which several options can be chosen
    config = composed(f"{group}=[{option}]" if several else f"{group}={option}")
    node: Any = OmegaConf.to_container(OmegaConf.select(config, group.replace("/", ".")))
    return node[option] if several else node


def defaults_of(target: str) -> dict[str, Any]:
    """The parameters of what a config calls, with their defaults."""
    parameters = inspect.signature(get_object(target)).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


def cell_id(config: DictConfig) -> str:
    (cell,) = build_study([config], [{}]).cells
    return cell.id


def leaves(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every plain value of a node, without Hydra's own keys. Of a list only the first item."""
    if isinstance(node, dict):
        for key, value in node.items():
            if not key.startswith("_"):
                yield from leaves(value, (*path, key))
    elif isinstance(node, list) and node:
        yield from leaves(node[0], (*path, 0))
    else:
        yield path


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return f"{value}x" if isinstance(value, str) else 1


def with_change(node: Any, path: tuple[Any, ...]) -> Any:
    """A copy of a node with another value at a path."""
    result = copy.deepcopy(node)
    parent = result
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = changed(parent[path[-1]])
    return result


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_value_in_a_config_changes_the_id(group: str, option: str) -> None:
    node = node_of(group, option)
    paths = list(leaves(node))
    names = {json.dumps(canonical_config(with_change(node, path))) for path in paths}
    assert len(names | {json.dumps(canonical_config(node))}) == len(paths) + 1


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_a_key_with_its_default_value_and_the_order_of_keys_change_no_id(group: str, option: str) -> None:
    """A key that a YAML file gains is, in the other direction, a key that it loses."""
    node = node_of(group, option)
    before = canonical_config(node)
    defaults = defaults_of(node["_target_"])
    for key in [key for key in node if key in defaults and defaults[key] == node[key]]:
        del node[key]
        assert canonical_config(node) == before, key
    assert canonical_config(dict(reversed(node.items()))) == before


def test_a_cell_keeps_its_id_without_default_values_and_with_whole_numbers_written_otherwise() -> None:
    config = composed("guidance.scale=2", "sampling.temperature=1", "negatives=own")
    expected = cell_id(config)
    shorter = copy.deepcopy(config)
    OmegaConf.set_struct(shorter, False)
    deleted: list[str] = []
    for group in SETTING_GROUPS:
        for key, default in defaults_of(shorter[group]._target_).items():
            if key in shorter[group] and shorter[group][key] == default:
                del shorter[group][key]
                deleted.append(f"{group}.{key}")
    assert {"model.skip_layers", "prompts.limit", "negatives.mode"} <= set(deleted)
    assert cell_id(shorter) == expected
    floats = composed("guidance.scale=2.0", "sampling.temperature=1.0", "negatives=own")
    assert cell_id(floats) == expected
    for other in ("seed=1", "samples=3", "max_new_tokens=65", "top=4", "stop=[x]", "guidance.scale=2.5"):
        assert (
            cell_id(composed("guidance.scale=2", "sampling.temperature=1", "negatives=own", other))
            != expected
        )


def test_modifiers_in_another_order_are_another_cell() -> None:
    first, second = (
        cell_id(composed(f"guidance/modifiers=[{names}]")) for names in ("apg,plausible", "plausible,apg")
    )
    assert first != second


def test_true_and_1_and_a_null_without_a_default_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def rule(flag: bool = True, number: float = 1.0, **other: object) -> None: ...

    def strict(required: object) -> None: ...

    module = ModuleType("rules_of_a_test")
    vars(module).update(rule=rule, strict=strict)
    monkeypatch.setitem(sys.modules, "rules_of_a_test", module)

    def name(target: str, **arguments: object) -> Any:
        return json.dumps(canonical_config({"_target_": f"rules_of_a_test.{target}", **arguments}))

    assert name("rule", flag=True, number=1) == name("rule", number=1.0) == name("rule")
    assert len({name("rule"), name("rule", flag=1), name("rule", number=True), name("rule", other=None)}) == 4
    assert name("strict", required=None) != name("strict")
    assert name("rule", _args_=[1]) != name("rule", _args_=[2])


def test_a_class_of_the_package_can_move_and_strangers_of_equal_name_differ(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = guidance.UnionGuidance
    cell = canonical_config({"_target_": "cfg_lab.guidance.UnionGuidance", "scale": 2})
    request = Request(positive=(1,), negatives=(Branch((2,)),), guidance=original(scale=2))
    completion = request.id("model")

    moved = ModuleType("cfg_lab.elsewhere")
    vars(moved)["UnionGuidance"] = original
    monkeypatch.setitem(sys.modules, "cfg_lab.elsewhere", moved)
    monkeypatch.setattr(original, "__module__", "cfg_lab.elsewhere")
    assert canonical_config({"_target_": "cfg_lab.elsewhere.UnionGuidance", "scale": 2}) == cell
    assert replace(request).id("model") == completion

    @dataclass(frozen=True, kw_only=True)
    class Stranger(original): ...

    Stranger.__name__ = Stranger.__qualname__ = "UnionGuidance"
    vars(moved)["Stranger"] = Stranger
    assert canonical_config({"_target_": "cfg_lab.elsewhere.Stranger", "scale": 2}) != cell
    assert replace(request, guidance=Stranger(scale=2)).id("model") != completion


def test_names_in_ids_are_unique_within_the_package() -> None:
    targets: set[str] = set()
    for path in CONFIG.rglob("*.yaml"):
        targets.update(
            line.split(":", 1)[1].strip()
            for line in path.read_text().splitlines()
            if line.strip().startswith("_target_:")
        )
    called = {get_object(target) for target in targets}
    assert len({target.__qualname__ for target in called}) == len(called) > 20


def test_a_target_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(InputError, match=r"cfg_lab\.guidance\.Nothing"):
        cell_id(composed("guidance._target_=cfg_lab.guidance.Nothing"))


REQUEST = Request(
    positive=(1, 2),
    negatives=(Branch((3,), 0.5),),
    guidance=guidance.ClassifierFreeGuidance(scale=2),
    sampling=sampling.Sampling(temperature=0.7),
    max_new_tokens=5,
    stop_ids=frozenset({7}),
    seed=1,
    sample=1,
    top=2,
)
CHANGES: dict[str, Any] = {
    "positive": (1, 3),
    "negatives": (Branch((3,), 0.6),),
    "guidance": guidance.ClassifierFreeGuidance(scale=2.5),
    "sampling": sampling.Sampling(temperature=0.8),
    "max_new_tokens": 6,
    "stop_ids": frozenset({8}),
    "stop_when": "a stop rule",
    "seed": 2,
    "sample": 2,
    "top": 3,
}


def test_every_field_of_a_request_changes_the_id_of_its_completion() -> None:
    assert set(CHANGES) == {field.name for field in fields(Request)}
    ids = {replace(REQUEST, **{name: value}).id("model") for name, value in CHANGES.items()}
    ids |= {REQUEST.id("model"), REQUEST.id("another model")}
    ids |= {replace(REQUEST, negatives=(Branch((3,), 0.5, "another model"),)).id("model")}
    assert len(ids) == len(CHANGES) + 3
    assert replace(REQUEST, guidance=guidance.ClassifierFreeGuidance(scale=2.0)).id("model") == REQUEST.id(
        "model"
    )


def test_what_cannot_change_a_completion_does_not_change_its_id() -> None:
    """Without guidance its negatives do not run; without random sampling its noise is not used."""
    off = replace(REQUEST, guidance=guidance.ClassifierFreeGuidance(scale=1))
    assert off.id("model") == replace(off, negatives=(Branch((9, 9)),)).id("model")
    assert off.id("model") == replace(off, guidance=None).id("model")
    greedy = replace(REQUEST, sampling=sampling.Greedy())
    assert greedy.id("model") == replace(greedy, seed=5, sample=6).id("model")


VALUES = sorted(
    {
        value
        for module in (guidance, sampling)
        for value in vars(module).values()
        if isinstance(value, type) and is_dataclass(value) and value.__module__.startswith("cfg_lab")
    },
    key=lambda value: value.__qualname__,
)


def field_values(value: type) -> Iterator[tuple[str, Any]]:
    """Pairs of field name and default of a dataclass."""
    for field in fields(value):
        yield field.name, field.default


@pytest.mark.parametrize("value", [value for value in VALUES if not inspect.isabstract(value)])
def test_every_field_of_a_rule_or_sampler_is_part_of_its_name(value: type) -> None:
    try:
        original = value()
    except TypeError:
        pytest.skip("has arguments without a default, or is a protocol")
    names = [json.dumps(canonical(original))]
    for name, default in field_values(value):
        other = copy.copy(original)
        object.__setattr__(other, name, changed(default))  # also values that the class would refuse
        names.append(json.dumps(canonical(other)))
    assert len(set(names)) == len(names)


def test_a_class_that_gains_an_argument_keeps_its_name() -> None:
    old = make_dataclass("Rule", [("scale", float, 1.5)], frozen=True)
    new = make_dataclass("Rule", [("scale", float, 1.5), ("floor", float, 0.0)], frozen=True)
    assert canonical(old(scale=2)) == canonical(new(scale=2.0)) == canonical(new(scale=2, floor=0))
    assert canonical(new(scale=2, floor=0.5)) != canonical(old(scale=2))


@pytest.fixture
def old_folder(tmp_path: Path, tiny_folder: Path) -> Path:
    """Results from before cells had a version."""
    sweep(*on(tmp_path, tiny_folder), "guidance.scale=1,2", "top=2")
    root = tmp_path / "results" / "study"
    for path in root.glob("cells/*.parquet"):
        table = pq.read_table(path)
        settings = table.schema.metadata[b"settings"]
        pq.write_table(table.replace_schema_metadata({b"settings": settings}), path)
    return root


def files(root: Path) -> dict[Path, int]:
    """Times of the last change; without W&B's logs, which its service process may still write."""
    paths = [path for path in root.rglob("*") if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in paths if path.suffix != ".log"}


def test_a_folder_of_another_version_is_read_and_scored_but_not_added_to(
    old_folder: Path, tmp_path: Path, tiny_folder: Path
) -> None:
    assert len(cfg_lab.load_results(old_folder)) == 2 * 3 * 2
    assert score(str(old_folder), ["metrics=[self_bleu]"])[0]["self_bleu_n"] == 6
    assert report(old_folder).stat().st_size > 10_000
    assert track(str(old_folder), ["tracking.mode=offline"]) == 3
    before = files(old_folder)
    with pytest.raises(InputError, match=r"name='study': .* another version of the lab; .* another name"):
        sweep(*on(tmp_path, tiny_folder), "guidance.scale=1,2,3")
    assert files(old_folder) == before


def test_a_damaged_cell_is_named_before_anything_is_written(tmp_path: Path, tiny_folder: Path) -> None:
    sweep(*on(tmp_path, tiny_folder), "guidance.scale=2")
    root = tmp_path / "results" / "study"
    (cell,) = root.glob("cells/*.parquet")
    shutil.copy(root / "config.yaml", cell)
    before = files(root)
    with pytest.raises(StoreError, match=rf"{cell.name} is damaged or cut short"):
        sweep(*on(tmp_path, tiny_folder), "guidance.scale=3")
    assert files(root) == before


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONFIG / "prompts").glob("*.jsonl")))
def test_a_set_of_this_lab_gives_the_same_cell_as_its_prompts_in_a_config(name: str) -> None:
    config = composed(f"prompts={name}", "prompts.limit=5", "prompts.half=held_out")
    by_name = cell_id(config)
    node: Any = OmegaConf.to_container(config.prompts)
    OmegaConf.set_struct(config, False)
    config.prompts = written_out(node)
    assert len(config.prompts.prompts) >= 64
    assert cell_id(config) == by_name
    config.prompts.prompts[0].text += "!"
    assert cell_id(config) != by_name
