"""A real Slurm on this machine: one controller and several nodes, in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
PATIENCE = 120.0
"""Seconds after which an event is given up. It only ends a test that fails."""

T = TypeVar("T")


def missing() -> str:
    """Why no cluster can run here; empty if one can."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"Slurm is not installed: no {', '.join(absent)} (.ci/run installs it)"
    return "" if os.getuid() == 0 else "only root can start Slurm"


def wait_until(event: Callable[[], T], what: str, state: Callable[[], str] = str) -> T:
    """What `event` returns as soon as that is true.

    Args:
        event: asked again and again.
        what: the event, for the error.
        state: text for the error: what is so instead.

    Raises:
        TimeoutError: after PATIENCE seconds.
    """
    end = time.monotonic() + PATIENCE
    while not (value := event()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not happen in {PATIENCE:.0f} seconds\n{state()}")
        time.sleep(0.05)
    return value


@dataclass(frozen=True, kw_only=True)
class Job:
    """One line of `squeue --array`: a task of an array, or a job that is not an array.

    Args:
        id: `12_3` for a task of an array, else `12`.
        name: its name.
        state: Slurm's word, such as PENDING.
        reason: why it waits or ended, such as Dependency.
        node: where it runs; empty if nowhere.
        restarts: how many times it was requeued.
    """

    id: str
    name: str
    state: str
    reason: str
    node: str
    restarts: int


@dataclass(kw_only=True)
class SlurmCluster:
    """A controller, `nodes` nodes of one core, and munge, on free ports. Nothing outside `folder` is written.

    A context manager: it starts, and ends with everything that ran in it.

    Args:
        nodes: number of nodes, named node1, node2 and so on.
        folder: configuration, state and logs; removed at the end.
    """

    nodes: int = 4
    # A short path of its own, because the path of a socket has at most 107 characters.
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp")))
    _daemons: dict[str, subprocess.Popen[bytes]] = field(
        default_factory=dict[str, subprocess.Popen[bytes]], init=False
    )

    @property
    def names(self) -> list[str]:
        """The names of the nodes."""
        return [f"node{number}" for number in range(1, self.nodes + 1)]

    def environment(self) -> dict[str, str]:
        """The variables with which a process, and all that it starts, uses this cluster."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
        return {**ours, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything, and wait until every node is idle."""
        self.folder.chmod(0o755)  # munge refuses a socket that others cannot reach
        for name in ("state", *self.names):
            (self.folder / name).mkdir()
        (self.folder / "slurm.conf").write_text(self._configuration(), encoding="utf-8")
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        names = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        files = [f"--{option}={self.folder}/munge.{ending}" for option, ending in names.items()]
        self._daemon("munged", "--foreground", "--force", f"--key-file={key}", *files)
        wait_until((self.folder / "munge.socket").exists, "the start of munge", self._logs)
        self._daemon("slurmctld", "-D")
        for name in self.names:
            self._daemon("slurmd", "-D", "-N", name, node=name)
        wait_until(lambda: set(self.states().values()) == {"idle"}, "the start of Slurm", self._logs)

    def stop(self) -> None:
        """End every process of the cluster and of its jobs, and remove the folder."""
        self._kill("")
        shutil.rmtree(self.folder)

    def kill_node(self, name: str) -> None:
        """A node fails: its slurmd and all processes of its jobs end at once.

        Slurm is not told. It notices after about 10 seconds: the node is `down*`, and its jobs are requeued.
        """
        self._kill(name)

    def clear(self) -> None:
        """Cancel all jobs, start the nodes that failed, and wait until every node is idle."""
        self.run("scancel", "--user=root")
        for name in self.names:
            if self._daemons[name].poll() is not None:
                self.start_node(name)
        going = "--states=PENDING,RUNNING,COMPLETING,SUSPENDED"
        wait_until(lambda: not self.squeue(going), "the end of all jobs", self._logs)
        wait_until(lambda: set(self.states().values()) == {"idle"}, "all nodes idle", self._logs)

    def start_node(self, name: str) -> None:
        """A node that failed starts again. Returns when Slurm can use it."""

        def started() -> str:
            facts = self.run("scontrol", "show", "node", name).split()
            return next(fact for fact in facts if fact.startswith("SlurmdStartTime="))

        before = started()
        self._daemon("slurmd", "-D", "-N", name, node=name)
        wait_until(
            lambda: started() != before and self.states()[name] in ("idle", "alloc"),
            f"the start of {name}",
            self._logs,
        )

    def end_soon(self, job: str) -> None:
        """Give a running job a time limit that it reaches in one to two minutes."""
        (seconds,) = self.run("squeue", "--noheader", f"--jobs={job}", "--Format=TimeUsed:20").split()
        minutes = (
            2 + sum(int(part) * 60**power for power, part in enumerate(reversed(seconds.split(":")))) // 60
        )
        self.run("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")

    def run(self, *command: str | Path) -> str:
        """The output of a command of Slurm.

        Raises:
            subprocess.CalledProcessError: if it fails.
        """
        done = subprocess.run(
            list(map(str, command)), env=self.environment(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        return done.stdout

    def states(self) -> dict[str, str]:
        """The state of each node, in sinfo's words: idle, alloc, down*. Empty while the controller starts."""
        with contextlib.suppress(subprocess.CalledProcessError):
            lines = self.run("sinfo", "--noheader", "--Node", "--format=%N %t").splitlines()
            return dict(line.split() for line in lines)
        return {}

    def squeue(self, *arguments: str) -> list[Job]:
        """What squeue shows, ended jobs included as long as Slurm keeps them.

        Args:
            arguments: which jobs, such as `--jobs=12`, `--name=x` or `--states=RUNNING`.
        """
        states = [] if any(argument.startswith("--states") for argument in arguments) else ["--states=all"]
        columns = "ArrayJobID:|,ArrayTaskID:|,Name:|,State:|,Reason:|,NodeList:|,RestartCnt:|"
        lines = self.run("squeue", "--array", "--noheader", f"--Format={columns}", *states, *arguments)
        rows = [[part.strip() for part in line.split("|")] for line in lines.splitlines()]
        return [
            Job(
                id=job if task == "N/A" else f"{job}_{task}",
                name=name,
                state=state,
                reason=reason,
                node=node,
                restarts=int(restarts),
            )
            for job, task, name, state, reason, node, restarts, _ in rows
        ]

    def wait(self, what: str, event: Callable[[dict[str, Job]], T], *arguments: str) -> T:
        """What `event` makes of the jobs, by id, as soon as that is true.

        Args:
            what: the event, for the error.
            event: is given what squeue shows.
            arguments: which jobs, as in `squeue`.
        """
        return wait_until(
            lambda: event({job.id: job for job in self.squeue(*arguments)}),
            what,
            lambda: f"{self.squeue()}\n{self._logs()}",
        )

    def _daemon(self, program: str, *arguments: str, node: str | None = None) -> None:
        variables = self.environment() | ({"SLURMD_NODENAME": node} if node else {})
        name = node or program
        with (self.folder / f"{name}.out").open("ab") as output:
            self._daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", program, *arguments],  # ends even if this process is killed
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _kill(self, node: str) -> None:
        """Kill the processes of a node, or of all, and what they started. Returns when they have ended."""
        while processes := list(self._processes(node)):
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.02)
        for daemon in self._daemons.values():
            daemon.poll()  # else a zombie of ours stays

    def _processes(self, node: str) -> Iterator[psutil.Process]:
        """The processes of a node, or of all, other than this one and those that started it."""
        ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                if process.pid not in ours and self._belongs(process, node):
                    family = (process, *process.children(recursive=True))
                    yield from (each for each in family if each.status() != psutil.STATUS_ZOMBIE)

    def _belongs(self, process: psutil.Process, node: str) -> bool:
        its = process.environ()
        if its.get("SLURM_CONF") == str(self.folder / "slurm.conf"):
            return node in ("", its.get("SLURMD_NODENAME"))
        # The title of a slurmstepd covers its variables. But it listens in the folder of its node.
        sockets = process.net_connections("unix") if process.name() == "slurmstepd" else []
        return any(Path(str(each.laddr)).is_relative_to(self.folder / node) for each in sockets)

    def _logs(self) -> str:
        return "\n".join(
            f"{path.name}:\n{path.read_text(errors='replace')[-2000:]}" for path in self.folder.glob("*.out")
        )

    def _configuration(self) -> str:
        here = socket.gethostname()
        controller, *ports = free_ports(self.nodes + 1)
        lines = f"""
ClusterName=test
SlurmctldHost={here}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits until its first credential has expired. Less than 5 s would mean two minutes.
AuthInfo=socket={self.folder}/munge.socket,cred_expire=5
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/%n
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
MailProg=/bin/true
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
JobRequeue=1
ReturnToService=2
# A failed node is noticed after about 10 s; a job that a node has lost, when the node starts again.
SlurmdTimeout=5
MessageTimeout=3
BatchStartTimeout=1
KillWait=2
MinJobAge=300
DefMemPerCPU=500
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
        nodes = [
            f"NodeName={name} NodeHostname={here} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=1000"
            for name, port in zip(self.names, ports, strict=True)
        ]
        return lines.lstrip() + "\n".join(nodes) + "\n"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
