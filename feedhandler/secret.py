"""An API secret that nothing shows: no repr, format, pickle, encoding or dump."""

import os
import stat
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

from feedhandler.errors import ConfigError

__all__ = ["MASK", "Secret", "shorten"]

MASK = "***"
BYTES_MAX = 4096
SHOWN = 4


def shorten(api_key: str) -> str:
    """Return how a key is shown: four characters of it, and never more than half."""
    return api_key and api_key[: min(SHOWN, len(api_key) // 2)] + "…"


class Secret:
    """Some bytes, at hand for whoever signs with them and for nobody else."""

    __slots__ = ("_reveal",)

    def __init__(self, value: str | bytes) -> None:
        text = _encoded(value) if isinstance(value, str) else bytes(value)
        del value  # A traceback may show the locals of whoever raises.
        if not text:
            raise ConfigError("secret is empty, or no text")
        # In a closure: not even a dump of the slots has the bytes.
        self._reveal: Callable[[], bytes] = lambda: text

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> "Secret":
        """Read the first line of a file that only its owner can read; ConfigError."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            fd = os.open(path, flags)
        except (OSError, ValueError) as error:
            why = (getattr(error, "strerror", None) or str(error)).lower()
            raise ConfigError(f"secret file {os.fspath(path)!r}: {why}") from None
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise ConfigError(
                    f"secret file {os.fspath(path)} is not a regular file"
                )
            if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
                mode = stat.S_IMODE(found.st_mode)
                raise ConfigError(
                    f"secret file {os.fspath(path)} has mode {mode:#o}, not one that "
                    "only you can read, such as 0o600"
                )
            return cls.from_stream(file, f"secret file {os.fspath(path)}")

    @classmethod
    def from_stream(cls, stream: BinaryIO, name: str) -> "Secret":
        """Read the first line of *stream*; ConfigError, with its *name*, for none."""
        line = stream.readline(BYTES_MAX + 2).rstrip(b"\r\n")
        if len(line) > BYTES_MAX:
            del line
            raise ConfigError(f"{name}: the first line is over {BYTES_MAX} bytes")
        if not line:
            raise ConfigError(f"{name} is empty")
        return cls(line)

    def reveal(self) -> bytes:
        """Return the bytes, to sign with."""
        return self._reveal()

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: Any) -> "Secret":
        return self


def _encoded(text: str) -> bytes:
    """Return the bytes of text, of a variable too; none where there are none.

    An exception of the codec would have the text in it.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return b""
