"""`qala run`: the parent of the door and the serving process. It restarts a child that died, and takes them down with it."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from devices.errors import UnavailableError
from qala.config import Config
from qala.process import DAMAGED, Hold, answers, is_free

__all__ = ["BACKOFF_S", "STOP_S", "Child", "Supervisor", "run"]

BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Waits before a child is started again, by how often it ended in a row [s]."""
STOP_S = 4.5
"""How long children may take to end by themselves [s]."""
_STEADY_S = 60.0  # a child that lived so long is trusted again
_FORMER_S = 5.0  # how long the ports and locks of a run that just ended are waited for
_SAY_S = 10.0  # how often is said that something is not ready
_LOOK_S = 0.05
_ROUND_S = 1.0
_HOPELESS_S = 60.0  # until a child whose files are damaged is started again: somebody has to see to them first
_FLAGS = {"ingest.mqtt": "--mqtt", "dashboards.http": "--http"}
_USAGE = 2  # exit code of a wrong configuration: starting again does not help

Say = Callable[[str], None]


class Child:
    """One process that is started again when it ends."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self._command = [sys.executable, "-m", "qala", *command, "--parent", str(os.getpid())]
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._again_at = 0.0
        self._failures = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process in a group of its own: the terminal's Ctrl-C is for the parent."""
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, process_group=0)  # noqa: S603 - our own
        self._started = time.monotonic()

    def look(self) -> int | None:
        """Start it again when its time has come. Return the exit code at the moment it is found ended."""
        if self._process is None:
            if time.monotonic() >= self._again_at:
                self.start()
            return None
        code = self._process.poll()
        if code is not None:
            self._note(code)
        return code

    def _note(self, code: int) -> None:
        self._process = None
        if time.monotonic() - self._started > _STEADY_S:
            self._failures = 0
        pause_s = BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
        self._again_at = time.monotonic() + (_HOPELESS_S if code == DAMAGED else pause_s)
        self._failures += 1

    def wait_s(self) -> float:
        """Tell how long nothing needs to be done for it [s]."""
        if self._process is not None:
            return _ROUND_S
        return max(0.0, self._again_at - time.monotonic())

    def terminate(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.terminate()

    def join(self, deadline: float) -> bool:
        """Wait for its end until a deadline, kill it then; tell whether it ended by itself."""
        if self._process is None:
            return True
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return False
        return True


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


class Supervisor:
    """Children that live until the supervisor is told to stop."""

    def __init__(self, children: Sequence[Child], say: Say) -> None:
        self.children = list(children)
        self.stopping = False
        self._say = say
        self._wake, self._woken = socket.socketpair()
        for end in (self._wake, self._woken):
            end.setblocking(False)

    def add(self, child: Child) -> None:
        child.start()
        self.children.append(child)

    def start(self) -> None:
        for child in self.children:
            child.start()

    def round(self, timeout_s: float) -> list[tuple[Child, int]]:
        """Wait for something to happen, at most so long; return the children that were found ended."""
        wait_s = min([timeout_s, *(child.wait_s() for child in self.children)])
        select.select([self._woken], [], [], wait_s)
        self._drain()
        if self.stopping:
            return []
        found = [(child, child.look()) for child in self.children]
        return [(child, code) for child, code in found if code is not None]

    def stop(self) -> None:
        """Take all children down, the last started first, within STOP_S."""
        deadline = time.monotonic() + STOP_S
        for child in reversed(self.children):
            child.terminate()
        for child in reversed(self.children):
            if not child.join(deadline):
                self._say(f"{child.name} did not end in time and was killed")

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Let SIGTERM, SIGINT and SIGHUP ask for the end, and every SIGCHLD wake the round."""

        def ask(_number: int, _frame: object) -> None:
            self.stopping = True

        asked = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, ask) for number in asked}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        wakeup = signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _drain(self) -> None:
        try:
            while self._woken.recv(4096):
                pass
        except BlockingIOError:
            return


def run(
    config: Config,
    flags: Sequence[str],
    *,
    guest: Sequence[str] | None = None,
    say: Say,
    ready: Callable[[float], None],
) -> int:
    """Run the door and the serving process, and with `guest` the rehearsal city, until a signal; return the exit code.

    `flags` are those that the children need to come to the same configuration, `guest` those of the rehearsal. `ready` is
    called once, with the seconds it took, when both answer. Raises ConflictError where the data folder is in use,
    UnavailableError where a port is.
    """
    began = time.monotonic()
    hold = Hold(config.folder / "run.lock")
    wait_for_ports(config)
    city = ["--rehearse"] if guest is not None else []
    supervisor = Supervisor([Child("the door", ["door", *flags]), Child("the server", ["serve", *city, *flags])], say)
    with supervisor.signals():
        try:
            supervisor.start()
            visitor = Child("the rehearsal", ["rehearse", *guest]) if guest is not None else None
            code = _until_ready(supervisor, config, say, visitor)
            if code == 0 and not supervisor.stopping:
                ready(time.monotonic() - began)
                code = _until_stopped(supervisor, say)
        finally:
            supervisor.stop()
            hold.release()
    return code


def _until_ready(supervisor: Supervisor, config: Config, say: Say, guest: Child | None) -> int:
    """Wait until both children answer; return an exit code where one of them cannot start.

    A large state or store takes its time to open, so a child is waited for as long as it lives, and is spoken of
    meanwhile. A guest needs only the door, and is started as soon as that answers.
    """
    needed = tuple(supervisor.children)
    addresses = (("the door", config.mqtt_socket), ("the server", config.socket))
    began = said = time.monotonic()
    while not supervisor.stopping:
        for child, code in supervisor.round(_LOOK_S):
            say(f"{child.name} ended ({_how(code)}) before all was ready")
            if child in needed:
                return max(code, 1)
        if guest is not None and answers(config.mqtt_socket):
            supervisor.add(guest)
            guest = None
        waited_for = [name for name, address in addresses if not answers(address)]
        if guest is None and not waited_for:
            return 0
        if time.monotonic() - said >= _SAY_S:
            said = time.monotonic()
            say(f"not ready after {said - began:.0f} s, waiting for {' and '.join(waited_for)} (Ctrl-C stops it)")
    return 0


def _until_stopped(supervisor: Supervisor, say: Say) -> int:
    while not supervisor.stopping:
        for child, code in supervisor.round(_ROUND_S):
            if code == _USAGE:
                return code
            say(f"{child.name} ended ({_how(code)}); starting it again in {child.wait_s():.1f} s")
    return 0


def wait_for_ports(config: Config) -> None:
    """Make sure that every address can be listened on. Raises UnavailableError."""
    deadline = time.monotonic() + _FORMER_S
    for key, address in config.addresses.items():
        while not is_free(address):
            if time.monotonic() > deadline:
                host, port = address
                raise UnavailableError(
                    f"{host}:{port} is in use by another program",
                    hint=f"choose another with {_FLAGS.get(key, key)}; who it is: ss -ltnp 'sport = :{port}'",
                )
            time.sleep(_LOOK_S)
