"""Every command that is shown to a user does what it says, also after a shell has read it.

Sources are README, docs, CONTRIBUTING, the experiments, the help texts, docstrings, and comments in conf.
"""

from __future__ import annotations

import ast
import json
import math
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, open_dict
from rich.console import Console

import cfg_lab.report.__main__ as report_command
import cfg_lab.track.__main__ as track_command
from cfg_lab import score
from cfg_lab.choose.budget import parse_budget
from cfg_lab.choose.settings import settings_of as choose_settings_of
from cfg_lab.commands import with_prompt_file
from cfg_lab.negatives import ModelNegative
from cfg_lab.options import CONFIG
from cfg_lab.report.document import TOKEN_BUDGET
from cfg_lab.search.objectives import parse_objectives
from cfg_lab.study.aim import parse_aim
from cfg_lab.study.build import build_study
from cfg_lab.study.config import build, compose_group
from cfg_lab.study.plan import plan
from cfg_lab.suggest.__main__ import check_arguments
from cfg_lab.suggest.cells import Bench
from cfg_lab.suggest.run import cell_config, plain_config_without_negatives
from cfg_lab.suggest.settings import settings_of
from cfg_lab.tasks.benchmark import build_benchmark
from hydra_plugins.cfg_lab_launcher.search_space import read_space
from tests.options import REQUIRED

REPOSITORY = CONFIG.parent
DOCUMENTS = [
    *(REPOSITORY / name for name in ("README.md", "README.zh.md", "CONTRIBUTING.md", "Makefile")),
    *(path for folder in ("docs", "experiments") for path in sorted((REPOSITORY / folder).rglob("*.md"))),
]
MODULES = sorted(
    path for folder in ("cfg_lab", "experiments") for path in (REPOSITORY / folder).rglob("*.py")
)
QUOTED = r"'[^']*'|\"[^\"]*\""


@dataclass(frozen=True)
class Documented:
    """A command as it is written, before a shell reads it.

    Attributes:
        source: the file that shows it, relative to the repository.
        text: the text, "python -m cfg_lab.sweep guidance.scale=1,2".
    """

    source: str
    text: str

    def __str__(self) -> str:
        return f"{self.source}: {self.text}"

    def words(self) -> list[str]:
        """The words that a shell makes of the text."""
        done = subprocess.run(
            ["bash", "-c", rf"printf '%s\0' {self.text}"], capture_output=True, text=True, check=True
        )
        return done.stdout.split("\0")[:-1]

    def expected_cells(self) -> int:
        """The number of cells that a reader expects: a comma outside quotes and brackets separates values."""
        written = re.findall(rf"(?:{QUOTED}|[^\s'\"])+", self.text)
        values = [re.sub(rf"{QUOTED}|\[.*\]|\{{.*\}}", "", word.partition("=")[2]) for word in written]
        return math.prod(value.count(",") + 1 for value in values)


def texts_of(path: Path) -> Iterator[str]:
    """The texts in a file that a user reads: of Python, docstrings and the constants of a module."""
    if path.suffix != ".py":
        yield path.read_text()
        return
    tree = ast.parse(path.read_text())
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    yield from (ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds))
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            yield str(node.value.value)


def commands_in(path: Path) -> Iterator[Documented]:
    """Lines and code spans that are commands, without the comments at their ends."""
    for text in texts_of(path):
        joined = re.sub(r"\\\n\s*", "", text)
        for line in joined.splitlines():
            spans = re.findall(r"`([^`]+)`", line) or [line.strip()]
            spans += re.findall(r'make \w+ ARGS="[^"]*"', line)
            for span in spans:
                command = re.split(r"\s+#", span)[0].strip()
                if re.fullmatch(r"python -m \w.*|make \w+( ARGS=.*)?", command):
                    yield Documented(str(path.relative_to(REPOSITORY)), command)


HELP = {
    name: yaml.safe_load((CONFIG / f"{name}.yaml").read_text())["hydra"]["help"]["template"]
    for name in ("sweep", "benchmark", "suggest", "choose", "learn_policy", "learn_distil", "learn_tune")
}
COMMANDS = [
    *(command for path in [*DOCUMENTS, *MODULES] for command in commands_in(path)),
    *(
        Documented(f"conf/{name}.yaml", line.strip())
        for name, template in HELP.items()
        for line in template.splitlines()
        if "python -m" in line
    ),
]
SEARCHES = [
    command
    for command in COMMANDS
    if "-m cfg_lab.sweep" in command.text
    and ("hydra/sweeper=optuna" in command.text or "experiment=search" in command.text)
]
SWEEPS = [command for command in COMMANDS if "-m cfg_lab.sweep" in command.text and command not in SEARCHES]
BENCHMARKS = [command for command in COMMANDS if "-m cfg_lab.benchmark" in command.text]
OTHERS = [command for command in COMMANDS if command not in (*SWEEPS, *SEARCHES, *BENCHMARKS)]


def overrides_in_comments() -> list[Documented]:
    """Overrides in the comments of conf. The text is one override or a line of overrides."""
    names = "|".join([*(path.name for path in CONFIG.iterdir() if path.is_dir()), "stop", "name"])
    key = rf"(?:{names})(?:[./]\w+)*="
    value = rf"(?:{QUOTED}|\[[^\]]*\]|[^\s,;:)'\"])+"
    word = rf"(?:'{key}[^']+'|{key}{value})"
    override = re.compile(rf"(?<![\w./=]){word}(?: {word})*")
    return [
        Documented(str(path.relative_to(REPOSITORY)), match[0].rstrip(".").replace("…", "x"))
        for path in sorted(CONFIG.rglob("*.yaml"))
        for line in path.read_text().splitlines()
        for match in override.finditer(line.partition("#")[2])
    ]


IN_COMMENTS = overrides_in_comments()


def jobs_of(overrides: list[str]) -> list[list[str]]:
    """The overrides of each cell."""
    return BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(overrides), None)[0]


def test_the_commands_are_found() -> None:
    """An extraction that finds nothing would let every other test here pass."""
    by_source = {
        source: [c for c in COMMANDS if c.source == source] for source in {c.source for c in COMMANDS}
    }
    least = {"README.md": 11, "CONTRIBUTING.md": 15, "conf/sweep.yaml": 3, "cfg_lab/score.py": 3}
    least |= {
        "conf/benchmark.yaml": 3,
        "cfg_lab/benchmark.py": 1,
        "conf/suggest.yaml": 2,
        "conf/choose.yaml": 2,
    }
    least |= {"docs/choosing.md": 7, "docs/benchmarks.md": 1, "docs/cluster.md": 3}
    least |= {"cfg_lab/track/__main__.py": 4, "experiments/rules/README.md": 1}
    assert {
        source: len(by_source.get(source, [])) >= count for source, count in least.items()
    } == dict.fromkeys(least, True)
    assert len(SWEEPS) >= 21
    assert len(IN_COMMENTS) >= 23


@pytest.mark.parametrize("command", [*SWEEPS, *IN_COMMENTS], ids=str)
def test_a_shell_and_hydra_make_the_cells_that_a_reader_expects(command: Documented) -> None:
    """A comma in a value that is quoted for the shell only would make two cells."""
    words = command.words()
    overrides = [word for word in words if "=" in word]
    flags = {"python", "-m", "cfg_lab.sweep", "--help"}
    assert not {*words} - {*overrides} - flags, "a word that is no override"
    assert len(jobs_of(overrides)) == command.expected_cells()


@pytest.mark.parametrize("command", [*COMMANDS, *IN_COMMENTS], ids=str)
def test_brackets_and_braces_are_quoted(command: Documented) -> None:
    """Without quotes zsh takes them for a pattern of file names, and runs nothing."""
    assert not re.search(r"[\[\]{}*?]", re.sub(QUOTED, "", command.text))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of the commands, with the file of prompts that README names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cfg_lab.study.build.environment_file", str)
    prompts = "".join(f'{{"text": "Hi{n}", "negative": "bad"}}\n' for n in range(6))
    (tmp_path / "mine.jsonl").write_text(prompts)
    toy = tmp_path / "results" / "toy_translation"  # what a command of experiments/domains writes
    toy.mkdir(parents=True)
    (toy / "words.jsonl").write_text(prompts)
    found = tmp_path / "results" / "suggest"  # what cfg_lab.suggest writes
    found.mkdir()
    (found / "negatives.yaml").write_text("phrases: sad")
    (tmp_path / "folder").mkdir()  # the dataset of REQUIRED
    (tmp_path / "folder" / "mine.jsonl").write_text(prompts)
    return tmp_path


def check_study(overrides: list[str], model: Path) -> None:
    """Compose and build the study of some overrides with a small model, and plan its first cell."""
    # The small model takes the place of every other one, also of students, which must be trained first.
    of_models = ("model.name=", "model=student", "model.path=", "model.scale=", "model.adapter=")
    jobs = jobs_of([line for line in overrides if not line.startswith(of_models)])
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        small = [f"model.name={model}", "prompts.limit=1", "max_new_tokens=4"]
        configs = [compose("sweep", overrides=[*job, *small], return_hydra_config=True) for job in jobs]
    study = build_study(configs, [{} for _ in jobs])
    assert len({cell.id for cell in study.cells}) == len(jobs)
    for cell in study.cells:
        if not isinstance(
            cell.negatives, ModelNegative
        ):  # the small model lacks the layers that it leaves out
            assert list(plan(replace(cell, samples=1), cell.model(), study.max_rows))


@pytest.fixture(scope="module")
def roomy_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that can see the longest prompts of the documented studies."""
    folder = tmp_path_factory.mktemp("roomy") / "model"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 8192}))
    return folder


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", SWEEPS, ids=str)
def test_a_documented_sweep_is_a_study(command: Documented, roomy_folder: Path) -> None:
    if command.source == "CONTRIBUTING.md":
        pytest.skip("needs the files of its recipe; tests/test_recipes.py runs it")
    check_study([word for word in command.words() if "=" in word], roomy_folder)


def _plain(value: object) -> object:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", SEARCHES, ids=str)
def test_a_documented_search_is_a_search(command: Documented, roomy_folder: Path) -> None:
    """Both ends of its space are a study, and its objectives are columns of its metrics."""
    overrides = [word for word in command.words() if "=" in word]
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        whole = compose(
            "sweep",
            overrides=[
                line for line in overrides if line.startswith(("hydra/", "experiment=", "objective="))
            ],
            return_hydra_config=True,
        )
        grid = whole.hydra.sweeper.params if "experiment=search" in overrides else {}
        lines = [f"{key}={value}" for key, value in grid.items()]
        space, fixed = read_space(OverridesParser.create().parse_overrides([*lines, *overrides]))
        assert space
        jobs = [
            [*fixed, *(f"{parameter.key}={parameter.ends[end]}" for parameter in space)] for end in (0, -1)
        ]
        small = [f"model.name={roomy_folder}", "max_new_tokens=4"]
        configs = [compose("sweep", overrides=[*job, *small], return_hydra_config=True) for job in jobs]
    for config in configs:
        with open_dict(config):
            del config["objective"], config["trials"]
    study = build_study(configs, [{} for _ in jobs])
    assert parse_objectives(_plain(whole.objective), study.metrics).aims


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", BENCHMARKS, ids=str)
def test_a_documented_benchmark_is_a_benchmark(command: Documented, tiny_folder: Path) -> None:
    overrides = [word for word in command.words() if "=" in word]
    jobs = jobs_of(overrides)
    assert len(jobs) == command.expected_cells()
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        configs = [
            compose("benchmark", overrides=[*job, f"model.name={tiny_folder}"], return_hydra_config=True)
            for job in jobs
        ]
    cells = build_benchmark(configs, [{} for _ in jobs]).cells
    assert len({cell.id for cell in cells}) == sum(len(config.tasks) for config in configs)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", IN_COMMENTS, ids=str)
def test_an_override_in_a_comment_suits_its_option(command: Documented, roomy_folder: Path) -> None:
    path = Path(command.source).relative_to("conf").with_suffix("")
    group, option = str(path.parent), path.name
    chosen = [] if group in (".", "experiment") else [f"{group}={option}"]
    if group in ("metrics", "guidance/modifiers"):
        chosen = [f"{group}=[{option}]"]
    words = command.words()
    given = {word.partition("=")[0] for word in words}
    chosen = [line for line in chosen if line.partition("=")[0] not in given]
    required = [
        line
        for (group, option), lines in REQUIRED.items()
        for line in lines
        if f"{group}={option}" in (*chosen, *words) and line.partition("=")[0] not in given
    ]
    check_study([*chosen, *required, *words], roomy_folder)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", OTHERS, ids=str)
def test_every_other_command_is_read_by_its_program(
    command: Documented, monkeypatch: pytest.MonkeyPatch
) -> None:
    if command.source == "CONTRIBUTING.md" and "-m experiments." in command.text:
        pytest.skip("needs the files of its recipe; tests/test_recipes.py runs it")
    program, *arguments = command.words()
    if program == "make":
        make = shutil.which("make")
        assert make is not None
        subprocess.run([make, "-n", *arguments], cwd=REPOSITORY, check=True, capture_output=True)
        return
    _, module, *rest = arguments
    calls: list[list[str]] = []
    if module == "cfg_lab.score":
        monkeypatch.setattr(score, "run", lambda _, overrides: calls.append(overrides))
        score.main(rest)
        assert build(compose_group("metrics", calls[0], "score"), "metrics")
    elif module == "cfg_lab.track":
        monkeypatch.setattr(track_command, "run", lambda _, overrides, **__: calls.append(overrides))
        if rest:  # the name of the command alone stands in a docstring
            track_command.main([word.replace("RESULTS", "results/default") for word in rest])
            assert build(compose_group("tracking", calls[0], "track"), "tracking")
    elif module == "cfg_lab.suggest":
        check_arguments(rest)
        with initialize_config_dir(str(CONFIG), version_base="1.3"):
            config = compose("suggest", overrides=rest, return_hydra_config=True)
        assert settings_of(plain_config_without_negatives(config), seed=0)
        bench = Bench(config=cell_config(config), aim=config.aim, command="", console=Console())
        assert bench.reward.metric
        assert bench.prompts("selection")
        assert bench.prompts("held_out")
    elif module == "cfg_lab.choose":
        with initialize_config_dir(str(CONFIG), version_base="1.3"):
            config = compose("choose", overrides=with_prompt_file(rest), return_hydra_config=True)
        values = plain_config_without_negatives(config)
        assert parse_budget(values["budget"])
        assert choose_settings_of(values)
        assert parse_aim(values["aim"], list(build(config, "metrics").values()))
        assert build(config, "prompts")
    elif module == "cfg_lab.learn" and rest:  # the name of the command alone stands in a docstring
        with initialize_config_dir(str(CONFIG), version_base="1.3"):
            assert compose(f"learn_{rest[0]}", overrides=rest[1:])
    elif module == "cfg_lab.report":
        monkeypatch.setattr(report_command, "report", lambda *_, **__: "report.html")
        assert report_command.main(rest) == 0
    else:
        monkeypatch.syspath_prepend(REPOSITORY)
        assert find_spec(module), f"no module {module}"


def test_extras_of_install_commands_exist() -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    paths = [*DOCUMENTS, *MODULES, *CONFIG.rglob("*.yaml")]
    named = {name for path in paths for name in re.findall(r"cfg_lab\[(\w+)\]", path.read_text())}
    assert named
    assert named <= extras.keys()


@pytest.mark.parametrize("size", ["nan", "-1", "inf", "much"])
def test_a_size_of_the_page_that_is_no_size_is_refused(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        report_command.main(["results/default", "--tokens", size])
    assert "error: argument --tokens" in capsys.readouterr().err


def test_the_default_that_the_help_of_the_page_prints_is_true(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        report_command.main(["--help"])
    printed = re.findall(r"default: ([\d.]+)\)", capsys.readouterr().out)
    assert [float(size) * 1e6 for size in printed] == [TOKEN_BUDGET]
