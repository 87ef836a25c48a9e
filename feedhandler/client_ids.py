"""Client order ids that no other process has, nor this one in another life."""

import os
import re
import secrets

__all__ = ["ClientIds", "is_client_id"]

_ID = re.compile(r"[\x21-\x7E]{1,64}")


def is_client_id(text: str) -> bool:
    """Tell whether the venue takes *text* for a client order id."""
    return _ID.fullmatch(text) is not None


class ClientIds:
    """Ids of a random prefix and a count, which need not be written down."""

    def __init__(self) -> None:
        self._start()

    def next(self) -> str:
        """Return an id that was never given before, of 32 characters at the most."""
        if self._pid != os.getpid():
            # A fork and its parent would count on with the same prefix.
            self._start()
        self._count += 1
        return f"{self._prefix}-{self._count}"

    def _start(self) -> None:
        self._pid = os.getpid()
        self._prefix = secrets.token_hex(8)
        self._count = 0
