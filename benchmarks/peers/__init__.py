"""What a user would pick instead of us, each coded as its user would write it.

A module has ``start(instruments)``, which returns a function of a message's bytes. That
decodes it, compares the sequence with the one before, applies it to the book and reads
the best level of both sides; of a message that leaves a side empty it returns None. The
instruments, the books and whatever can be looked up are looked up beforehand.

Those with a client have ``follow(url, request, handle, count, watch)`` too: subscribe,
take that many messages, return what the last one left.
"""

import importlib
import importlib.metadata
import importlib.util
import resource
import time
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

# Best bid and best ask, each price and size, in the numbers of the library.
Best = tuple[tuple[Any, Any], tuple[Any, Any]] | None
Handle = Callable[[Any], Any]


# Of none of them, as coded here.
LACKING = "resync, trust state, shared memory for others, loss counts, trades"


class Instrument(NamedTuple):
    """What is known of an instrument before its first message."""

    symbol: str
    channel: str
    price_decimals: int = 8
    size_decimals: int = 8


class Watch:
    """What the messages of a connection took."""

    def begin(self) -> None:
        """Note that the subscription was confirmed: nothing else has come yet."""
        self._before_ns = processor_ns()

    def end(self) -> None:
        """Note that the last message was handled."""
        self.done_ns = time.monotonic_ns()
        user_ns, kernel_ns = processor_ns()
        self.user_ns = user_ns - self._before_ns[0]
        self.kernel_ns = kernel_ns - self._before_ns[1]


def processor_ns() -> tuple[int, int]:
    """Return what this process had of a processor: the user's share, the kernel's."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return int(used.ru_utime * 1e9), int(used.ru_stime * 1e9)


class GapError(Exception):
    """A message is not the next one of its book; what a user does then is not here."""

    def __init__(self, channel: str, expected: int, received: int) -> None:
        super().__init__(f"{channel}: expected {expected}, received {received}")


class Peer(NamedTuple):
    """A row: its module here, the packages that it needs, and what it does not do.

    *packages* are the names for pip, and those for import. *takes* are the numbers that
    get into its book, and that no venue may send.
    """

    module: str
    packages: dict[str, str]
    takes: tuple[str, ...]
    start: str = "start"
    over_a_socket: bool = False

    @property
    def lacks(self) -> str:
        """What it does not do that the feed handler does, in words."""
        return f"{LACKING}; takes {', '.join(self.takes)}"

    def missing(self) -> list[str]:
        """Return the packages that are not installed."""
        return [
            package
            for package, module in self.packages.items()
            if importlib.util.find_spec(module) is None
        ]

    def load(self) -> ModuleType:
        """Import the module; what its libraries warn of is not our affair."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(f"benchmarks.peers.{self.module}")

    def handle(self, instruments: list[Instrument]) -> Handle:
        """Return its function of a message, with empty books."""
        module = self.load()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(module, self.start)(instruments)

    def versions(self) -> str:
        return ", ".join(
            f"{package} {importlib.metadata.version(package)}"
            for package in self.packages
        )
