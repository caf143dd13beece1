"""Every YAML composes and describes an object that can be made."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

import cfg_lab
from cfg_lab import Prompt, Request, analysis
from cfg_lab.commands import check_command_line, with_prompt_file
from cfg_lab.decoding.identity import canonical
from cfg_lab.errors import InputError
from cfg_lab.guidance import ClassifierFreeGuidance
from cfg_lab.metrics import Mauve, needs_whole_cell
from cfg_lab.options import CONFIG, option_names
from cfg_lab.study.build import build_study, canonical_config
from cfg_lab.study.cell import Cell, Study
from cfg_lab.study.config import build
from cfg_lab.study.results_folder import results_folder, study_name
from tests.options import OFFLINE, REQUIRED
from tests.policies import write_policy
from tests.texts import choice, text

GROUPS = ["model", "prompts", "negatives", "guidance", "sampling", "metrics", "tracking"]
GROUPS += ["guidance/schedule", "guidance/adaptive", "guidance/modifiers", "guidance/stopping"]
LISTS = ("metrics", "guidance/modifiers")  # groups of which several options can be chosen
OPTIONS = [(group, option) for group in GROUPS for option in option_names(group)]


def composed(group: str, option: str) -> Any:
    """The config node of an option, with all values."""
    choice = f"[{option}]" if group in LISTS else option
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        config = compose("sweep", overrides=[f"{group}={choice}", *REQUIRED.get((group, option), [])])
    OmegaConf.resolve(config)
    node: Any = OmegaConf.select(config, group.replace("/", "."))
    return node[option] if group in LISTS else node


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_describes_an_object(
    group: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    for path in ("prompts.csv", "folder/prompts.csv"):
        Path(path).write_text("text\nHi\n")
    Path("negatives.yaml").write_text("phrases: sad")
    write_policy(Path("policy.json"))
    node = composed(group, option)
    built: Any = instantiate(node, _convert_="all")
    target: Any = get_object(node._target_)
    if group == "model":
        assert isinstance(built, partial)
        assert built.func is target
        assert built.keywords["name"]
    elif group == "prompts":
        assert [type(prompt) for prompt in built] == [Prompt] * len(built)
        assert built
    else:
        expected = target if isinstance(target, type) else get_type_hints(target)["return"]
        assert type(built) is expected


def calls(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every call in a config node, itself included, under the path of its key."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from calls(value, f"{path}.{key}")


def parameters_of(target: str) -> dict[str, inspect.Parameter]:
    """The parameters of what a config calls. A preset of a rule passes further arguments on to it."""
    called = get_object(target)
    parameters = dict(inspect.signature(called).parameters)
    for field in fields(called) if is_dataclass(called) else ():
        if field.default_factory is not MISSING:
            default = field.default_factory()
            parameters[field.name] = parameters[field.name].replace(default=default)
    if any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values()):
        del parameters["arguments"]
        rule = dict(inspect.signature(ClassifierFreeGuidance).parameters)
        del rule["normalise_weights"]  # each preset decides it
        parameters = rule | parameters
    return parameters


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_argument_is_visible(group: str, option: str) -> None:
    for path, call in calls(OmegaConf.to_container(composed(group, option)), option):
        missing = parameters_of(call["_target_"]).keys() - call.keys()
        if path != option and call["_target_"] == "hydra.utils.get_method":
            continue  # a function by its name
        assert not missing or call.get("_partial_"), f"conf/{group}: {path} does not show {missing}"


NAMED_DIFFERENCES = {
    # Options of guidance that are named for the part in which they differ from cfg.
    **{
        f"guidance/{option}": {part}
        for part, options in {
            "schedule": ("interval", "linear", "cosine", "decay", "warm_up"),
            "adaptive": ("by_entropy", "by_divergence", "by_jsd", "entropy_gate", "kl_budget"),
            "stopping": ("adaptive_stop",),
            "modifiers": ("plausible", "rescale", "apg", "zero_star"),
        }.items()
        for option in options
    },
    # Options of negatives that are named for what they do with each prompt's own phrases.
    "negatives/own_heaviest": {"heaviest"},
    "negatives/own_separate": {"mode"},
    "negatives/own_bare": {"template"},
    "negatives/own_system": {"template", "system"},
    # A linear schedule that rises instead of falling.
    "guidance/schedule/warm_up": {"start", "end", "steps"},
}
"""Options, and the arguments in which their values may differ from the defaults of what they call."""


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_values_equal_the_defaults_of_what_is_called(group: str, option: str) -> None:
    """A sweep and a line of Python that name nothing do the same."""
    given = {override.partition("=")[0].split(".")[-1] for override in REQUIRED.get((group, option), [])}
    allowed = NAMED_DIFFERENCES.get(f"{group}/{option}", set()) | given
    for path, call in calls(OmegaConf.to_container(composed(group, option)), option):
        for name, parameter in parameters_of(call["_target_"]).items():
            if parameter.default is inspect.Parameter.empty or name not in call or name in allowed:
                continue
            if path != option and (call.get("_partial_") or path.partition(".")[2] in allowed):
                continue  # a model or a part that the option is named for
            value, default = canonical_config(call[name]), parameter.default
            default = default if isinstance(default, dict) else canonical(default)
            if isinstance(value, dict) and not isinstance(parameter.default, dict):  # modifiers by name
                value = list(value.values())
            assert value == default, f"conf/{group}: {path}.{name} is {value}, but the default is {default}"


def test_plain_settings_equal_the_defaults_in_python() -> None:
    """Those of conf/sweep.yaml itself; an experiment names its differences."""
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        config = compose("sweep", overrides=["~experiment"])
    for call in (Cell, Study, cfg_lab.generate):
        for name, parameter in inspect.signature(call).parameters.items():
            if name in ("seed", "samples", "max_new_tokens", "top", "max_rows", "cuda_graphs"):
                assert parameter.default == config[name], f"{call.__name__}({name}=…)"
    assert inspect.signature(Request).parameters["max_new_tokens"].default == config.max_new_tokens


@pytest.mark.parametrize(
    "name", ["", " ", None, "a/b", "..", ".", ".hidden", "a\\b", " a", "é" * 101, 2.5, True]
)
def test_a_name_that_is_no_folder_in_the_root_is_refused(name: Any) -> None:
    with pytest.raises(InputError, match=r"^name must be .*got"):
        study_name(name)


def test_names_of_folders() -> None:
    names = ("mine", "名前", "a b", "x" * 200, "scale=2", 2026)
    assert [study_name(name) for name in names] == [str(name) for name in names]
    assert results_folder("~/results", "a") == Path.home() / "results" / "a"
    for root in ("", " ", None, "a\nb"):
        with pytest.raises(InputError, match=r"^results_root must be"):
            results_folder(root, "a")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("+guidance.foo=3", r"guidance\.foo is unknown \(got 3\); guidance has the keys .*normalise_weights"),
        ("+model.foo=3", r"model\.foo is unknown \(got 3\); model has the keys name, "),
        ("+sampling.foo=3", r"sampling\.foo is unknown .* the keys temperature, top_k, top_p, min_p"),
        ("+guidance.schedule.foo=3", r"guidance\.schedule\.foo is unknown"),
        ("+tracking.foo=3", r"tracking\.foo is unknown .* project, entity, mode, token_rows"),
        ("+metrics.length.foo=3", r"metrics\.length\.foo is unknown"),
        ("+modle=gpt2", r"modle is not a config key \(got 'gpt2'\) \(did you mean model\?\)"),
        ("+any.thing=3", r"any is not a config key \(got \{'thing': 3\}\); the keys are name, "),
        ("report=no", r"report must be true or false, got 'no'"),
        ("model.dtype=7", r"model\.dtype must be a text in UTF-8, got 7"),
        ("metrics.length=null", r"metrics must be a list of options"),
    ],
)
def test_unknown_keys_and_wrong_types_are_named(override: str, sentence: str) -> None:
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        config = compose("sweep", overrides=["metrics=[length]", override], return_hydra_config=True)
    create = partial(build, key="tracking") if "tracking" in override else partial(build_study, labels=[{}])
    with pytest.raises(InputError, match=f"^{sentence}"):
        create(config if "tracking" in override else [config])


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("metrics=null", r"metrics must be one of answer, .*, got null"),
        ("guidance/schedule=null", r"guidance/schedule must be one of constant, .*, got null"),
        (
            "guidance.modifiers.apg.parallel=0",
            r"guidance\.modifiers\.apg is .*; guidance/modifiers=… chooses",
        ),
        (
            "guidance.schedule.start=0",
            r"guidance\.schedule\.start is .*; guidance/schedule=… chooses its options",
        ),
        (
            "guidance.modifiers=[apg]",
            r"'guidance\.modifiers=\[apg\]' is wrong: guidance\.modifiers is a mapping; ",
        ),
        (
            "model.name.x=1",
            r"model\.name\.x is not a config key: model\.name has no keys; \+model\.name\.x=… adds",
        ),
        ("stop.0=x", r"'stop\.0=x' is wrong: stop\[0\] is beyond the end of the list"),
        ("stop=[。]", r"""'stop=\[。\]' cannot be read; .* quotes of its own, .*, such as 'stop=\["…"\]'$"""),
        (
            "prompts.prompts=[{text: 好}]",
            r""".* cannot be read; .* such as 'prompts\.prompts=\[{name: "…"}\]'$""",
        ),
        ("model.template_arguments={a: é}", r""".* such as 'model\.template_arguments={name: "…"}'$"""),
        ("stop=。", r"""'stop=。' cannot be read; .* two pairs of quotes, such as 'stop="。"'$"""),
    ],
)
def test_a_wrong_override_is_named_with_what_would_be_right(override: str, sentence: str) -> None:
    with pytest.raises(InputError, match=f"^{sentence}"):
        check_command_line([override], "sweep")


@pytest.mark.parametrize("name", sorted(OFFLINE))
def test_every_column_of_a_metric_lies_within_its_bounds(name: str) -> None:
    """Of texts that go to the ends: empty, equal, one word over and over, the reference itself."""
    metric: Any = replace(OFFLINE[name], min_texts=20) if isinstance(OFFLINE[name], Mauve) else OFFLINE[name]
    prompts = range(20 if name == "Mauve" else 3)  # MAUVE needs 20 references, self-BLEU 3 prompts
    written = [
        "",
        "no " * 20,
        "I love this wonderful day.",
        "You are a fucking idiot",
        "The cat sat",
        "7 \n\n !",
    ]
    texts = [
        text(
            words,
            prompt=Prompt(
                id=str(i), text=f"The cat {i}", negative="sad:-1, bleak", references=("The cat sat",)
            ),
            guided_log_probs=(-0.0,) * len(words.split()),
            entropies=(0.0,) * len(words.split()),
            tokens_read=(9, 3),
            tokens_read_in_full=(9, 6),
            parameters=(100, 100),
            choices=(choice(i == 0, -1.0), choice(i != 0, -2.0)),
        )
        for i in prompts
        for words in written
    ]
    for column, values in metric.score(texts).items():
        scored = [value for value in values if not math.isnan(value)]
        # The single values of a metric of the whole cell are the jackknife's; their mean is the cell's value.
        bounded = scored if not needs_whole_cell(metric) else [sum(scored) / len(scored)] if scored else []
        assert bounded, f"{column} is NaN for every text"
        least, greatest = analysis.bounds(column)
        assert all(least - 1e-6 <= value <= greatest + 1e-6 for value in bounded), column


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ("mine.jsonl", ["mine.jsonl"]),
        ("a.csv,b/c.TXT", ["a.csv", "b/c.TXT"]),
        ("my prompts (new).jsonl", ["my prompts (new).jsonl"]),
        ("'quoted file.txt'", ["quoted file.txt"]),
        ("C:\\data\\mine.parquet", ["C:\\data\\mine.parquet"]),
    ],
)
def test_a_prompt_file_can_stand_in_the_place_of_the_option(value: str, paths: list[str]) -> None:
    arguments = with_prompt_file(["guidance.scale=2", f"prompts={value}", "name=mine"])
    assert [arguments[0], arguments[1], arguments[3]] == ["guidance.scale=2", "prompts=file", "name=mine"]
    jobs = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(arguments), None)[0]
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        assert [compose("sweep", overrides=job).prompts.path for job in jobs] == paths


def test_options_of_prompts_are_left_as_they_are() -> None:
    arguments = ["prompts=openers,design", "prompts.path=a.jsonl", "prompts=a.jsonl,openers", "--help"]
    assert with_prompt_file(arguments) == arguments
