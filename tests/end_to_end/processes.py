"""Run the product's programs as a user would, and end them again."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from feedhandler.consumer import MarketData, attach
from feedhandler.errors import RingAbsent

T = TypeVar("T")
START_S = 20.0
STOP_S = 5.0


class Program:
    """One ``feedhandler`` command, running; *output* is its first line on stdout."""

    def __init__(self, *arguments: str, stdout: int = subprocess.PIPE) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "feedhandler", "--log-level", "error", *arguments],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.errors()
        return line.strip()

    def errors(self) -> str:
        self.process.wait(STOP_S)
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@contextlib.contextmanager
def program(*arguments: str) -> Iterator[Program]:
    running = Program(*arguments)
    try:
        yield running
    finally:
        # Ask first: a feed that is killed leaves its segments behind.
        running.end()
        for stream in (running.process.stdout, running.process.stderr):
            if stream is not None:
                stream.close()


@contextlib.contextmanager
def venue(*arguments: str, port: int = 0) -> Iterator[tuple[Program, str]]:
    with program("venue", "--port", str(port), *arguments) as running:
        yield running, running.line().split()[-1]


def attached(name: str) -> MarketData:
    """Attach to a feed that is about to start."""
    return until(lambda: _try_attach(name), "the feed to appear")


def _try_attach(name: str) -> MarketData | None:
    try:
        return attach(name)
    except RingAbsent:
        return None


def until(probe: Callable[[], T | None], what: str, seconds: float = START_S) -> T:
    """Call *probe* until it returns something; fail after *seconds*."""
    deadline = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.002)


def unique(prefix: str) -> str:
    return f"{prefix}-{os.getpid()}"


def left_behind(name: str) -> list[str]:
    return [entry for entry in os.listdir("/dev/shm") if name in entry]
