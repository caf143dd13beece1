"""Runs a Python program that a model wrote, in a process of its own with little freedom.

What is prevented, on Linux and macOS:

- more processor time, memory or open files than the limits that are set with the operating system;
- running longer than a time limit: the process is killed;
- the network, starting processes, `ctypes`, and writing, making, renaming or deleting files and folders:
  Python asks an audit hook before each of these operations. The hook refuses every event outside
  `_ALLOWED_EVENTS`, and Python code cannot remove it;
- reading environment variables (there are none) and standard input (it is empty), writing to the terminal,
  and importing packages other than Python's own (`python -I -S`).

What is not prevented:

- reading files that the user can read. The program has no way to send or keep what it reads;
- threads, and operations for which Python asks no audit hook: named pipes (`os.mkfifo`), priorities
  (`os.nice`) and user ids (`os.setuid`);
- code that was written to break out of Python.

So this is no sandbox against an attacker. It is enough for the mistakes of a model. Where it is not enough,
run the command in a container without a network.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import tempfile

_ALLOWED_EVENTS = (
    "import",
    "compile",
    "exec",
    "open",  # only for reading
    "marshal.loads",
    "code.__new__",
    "object.__getattr__",
    "object.__setattr__",
    "object.__delattr__",
    "builtins.id",
    "builtins.input",
    "builtins.input/result",
    "array.__new__",
    "sys._getframe",
    "sys.excepthook",
    "sys.unraisablehook",
    "os.listdir",
    "os.scandir",
    "os.fwalk",
    "os.walk",
    "glob.glob",
    "cpython.run_stdin",
    "gc.get_objects",
    "gc.get_referrers",
    "gc.get_referents",
)
"""Events of Python's audit hooks that a program may cause. All others raise a PermissionError in it."""

_CHILD = """
import os, resource, sys
program, token = sys.stdin.read().split("\\0")
seconds, megabytes = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
allowed, read_only = frozenset(sys.argv[3].split()), os.O_RDONLY | os.O_CLOEXEC
write, output = os.write, os.dup(1)
sys.stdout = sys.stderr = open(os.devnull, "w")
os.close(1), os.close(2)
def refuse(event, arguments):
    if event not in allowed or event == "open" and arguments[2] not in (None, read_only, os.O_RDONLY):
        raise PermissionError(event)
def run(code):
    sys.addaudithook(refuse)
    exec(code, {"__name__": "program"})
run(program)
write(output, token.encode())
"""


def passes(program: str, *, seconds: int, megabytes: int) -> bool:
    """Whether a program runs to its end without an error, within its limits.

    Args:
        program: Python source.
        seconds: limit of processor time. The limit of real time is twice as long, and a second for the start.
        megabytes: limit of memory.
    """
    token = secrets.token_hex(16)  # only a program that comes to its end gives it back
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        _CHILD,
        str(seconds),
        str(megabytes),
        " ".join(_ALLOWED_EVENTS),
    ]
    with tempfile.TemporaryDirectory() as folder:
        try:
            process = subprocess.run(
                command,
                input=f"{program}\0{token}".encode(errors="replace"),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env={"PYTHONHASHSEED": "0"},
                timeout=2 * seconds + 1,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
    return process.stdout == token.encode()
