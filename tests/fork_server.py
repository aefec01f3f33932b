"""A backend that is started once, for the processes of many commands: each is a fork of it.

To import Keras takes longer than what most tests ask of a worker. `Forks` stands in for the module
`subprocess` in `sae_oracle.processes`. What a command does with a process stays as it is: the two
pipes, signals, limits, what it prints, and how it ends. Only the start is not: it is the same for
all commands, and tests of verify, train and review have it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from tests.fresh_process import environment

SERVER = """
import gc, importlib, json, os, runpy, socket, sys, warnings

warnings.simplefilter("ignore")  # JAX warns of forks: none of its threads has started yet
for name in sys.argv[2:]:
    importlib.import_module(name)
gc.collect()
gc.freeze()
server = socket.socket(fileno=int(sys.argv[1]))
while True:
    text, received, _, _ = socket.recv_fds(server, 2**20, 8)
    while text and not text.endswith(b"\\n"):
        text += server.recv(2**20)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
    if not text:
        break
    call = json.loads(text)
    watcher = os.fork()
    if watcher:
        for descriptor in received:
            os.close(descriptor)
        continue
    # The watcher says which process it is, and how it ended.
    server.close()
    ends, output, *passed = received
    worker = os.fork()
    if worker:
        os.close(output)
        for descriptor in passed:
            os.close(descriptor)
        os.write(ends, b"%d\\n" % worker)
        os.write(ends, b"%d\\n" % os.waitpid(worker, 0)[1])
        os._exit(0)
    os.close(ends)
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.chdir(call["folder"])
    os.environ.update(call["variables"] | dict(os.environ))
    # What is passed comes first among the arguments, with the numbers that it has there.
    _, _, how, program, *arguments = call["command"]
    sys.argv = [program, *map(str, passed), *arguments[len(passed) :]]
    break
if not text:
    try:
        while os.wait():
            pass
    except ChildProcessError:
        pass
elif how == "-m":
    runpy.run_module(program, run_name="__main__", alter_sys=True)
else:
    exec(program, {"__name__": "__main__"})
"""


class Fork:
    """What `subprocess.Popen` is to its caller, of a process that the server has forked."""

    def __init__(self, ends: int, output: int | None) -> None:
        self._ends = os.fdopen(ends, "rb", buffering=0)
        self.stdout: Any = None if output is None else os.fdopen(output, "rb", buffering=0)
        self.pid = int(self._ends.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._ends], [], [], 0.0)[0]:
            self.wait()
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._ends], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            self.returncode = os.waitstatus_to_exitcode(int(self._ends.readline()))
            self._ends.close()
        return self.returncode


class Forks:
    """A server of forks on a backend, as the module `subprocess` of `sae_oracle.processes`.

    Args:
        backend: Its name. Every worker is on it, whatever it is asked to be.
        modules: What is imported once: nothing of it may have begun to compute.
        hidden: As in `tests.fresh_process.environment`.
    """

    DEVNULL, PIPE, STDOUT = subprocess.DEVNULL, subprocess.PIPE, subprocess.STDOUT

    def __init__(self, backend: str, *modules: str, hidden: tuple[str, ...] | None = None) -> None:
        self.backend = backend
        self._guard = threading.Lock()
        self._socket, other = socket.socketpair()
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", SERVER, str(other.fileno()), "keras", *modules],
                env=environment(backend, hidden=hidden),
                pass_fds=[other.fileno()],
            )

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, *unused: object) -> None:
        self._socket.close()
        self._process.wait(timeout=60)

    def Popen(  # noqa: N802
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        pass_fds: Sequence[int],
        **named: Any,
    ) -> Fork:
        assert env["KERAS_BACKEND"] == self.backend
        assert named.pop("start_new_session")
        stdout = named.pop("stdout")
        assert named == {"stdin": self.DEVNULL, "stderr": self.STDOUT}
        ends, ends_of_watcher = os.pipe()
        if stdout == self.PIPE:
            output, output_of_worker = os.pipe()
        else:
            output, output_of_worker = None, os.dup(stdout.fileno())
        call = {
            "command": list(command),
            "variables": dict(env),  # the server's own win
            "folder": os.getcwd(),
        }
        descriptors = [ends_of_watcher, output_of_worker, *pass_fds]
        with self._guard:
            text = json.dumps(call).encode() + b"\n"
            sent = socket.send_fds(self._socket, [text], descriptors)
            self._socket.sendall(text[sent:])
            os.close(ends_of_watcher)
            os.close(output_of_worker)
            return Fork(ends, output)

    def start(self, program: str, *arguments: str, stdout: Any = PIPE) -> Fork:
        """Start a program as `python -P -c` does."""
        return self.Popen(
            [sys.executable, "-P", "-c", program, *arguments],
            env={"KERAS_BACKEND": self.backend},
            pass_fds=(),
            start_new_session=True,
            stdin=self.DEVNULL,
            stdout=stdout,
            stderr=self.STDOUT,
        )

    def run(self, program: str, *arguments: str) -> str:
        """Run a program as `python -P -c` does; return what it prints."""
        fork = self.start(program, *arguments)
        with fork.stdout:
            printed = fork.stdout.read().decode()
        assert fork.wait() == 0, printed
        return printed
