"""The launcher composes every job as Hydra does, only sooner."""

from __future__ import annotations

from typing import Any

from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf

from cfg_lab.options import CONFIG
from hydra_plugins.cfg_lab_launcher.batch import compose


def test_shared_compositions_equal_hydras_own() -> None:
    arguments = [
        "guidance.scale=2.5,-3e-1",
        "negatives=own,custom",
        "+negatives.note=a,b",
        "negatives.phrases='ugly:0.8, low','x'",
        "stop=[],[a]",
        "prompts.system=null,'{braces}'",
    ]
    (jobs,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(arguments), None)
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        hydra = GlobalHydra.instance()
        loader = hydra.config_loader()
        master = loader.load_configuration("sweep", [], run_mode=RunMode.MULTIRUN)
        for job, found in zip(jobs, compose(loader, master, jobs), strict=True):
            expected: Any = loader.load_sweep_config(master, list(job))
            ours: Any = OmegaConf.to_container(found)
            theirs: Any = OmegaConf.to_container(expected)
            for either in (ours, theirs):  # the number of the job, which Hydra's launchers set
                for key in ("id", "num", "override_dirname"):
                    either["hydra"]["job"].pop(key, None)
            assert ours == theirs
            assert OmegaConf.is_struct(found)
    assert len(jobs) == 2**6
