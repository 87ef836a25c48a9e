"""An API secret that nothing shows: no repr, format, pickle, encoding or dump."""

import os
import stat
from collections.abc import Callable
from typing import Any, NoReturn

from feedhandler.errors import ConfigError

__all__ = ["Secret"]

MASK = "***"
BYTES_MAX = 4096


class Secret:
    """Some bytes, at hand for whoever signs with them and for nobody else."""

    __slots__ = ("_reveal",)

    def __init__(self, value: str | bytes) -> None:
        text = value.encode() if isinstance(value, str) else bytes(value)
        if not text:
            raise ConfigError("secret is empty")
        # In a closure: not even a dump of the slots has the bytes.
        self._reveal: Callable[[], bytes] = lambda: text

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> "Secret":
        """Read the first line of a file that only its owner can read; ConfigError."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            fd = os.open(path, flags)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise ConfigError(f"secret file {os.fspath(path)}: {why}") from None
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
            line = file.read(BYTES_MAX).splitlines()[:1]
        if not line or not line[0]:
            raise ConfigError(f"secret file {os.fspath(path)} is empty")
        return cls(line[0])

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
