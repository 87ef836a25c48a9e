"""Lose TCP segments on their way into a socket: data, acknowledgements, and SYNs.

A filter of the socket drops them before TCP sees them, so the sender repeats them as
it would on a bad line. No namespace and no rule of a firewall is needed.
"""

import ctypes
import socket
import struct

import pytest

from feedhandler.testing import FaultProxy

__all__ = ["lose", "lose_all", "lose_none", "lost", "needs_filters", "sockets"]

SO_ATTACH_FILTER, SO_DETACH_FILTER, SO_MEMINFO = 26, 27, 55
# Classic BPF, see linux/filter.h: code, jump if true, jump if false, constant.
LOAD_RANDOM = (0x20, 0, 0, 0xFFFFF000 + 56)
DROP, PASS = (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF)


def lose(sock: socket.socket, share: float) -> None:
    """Lose that *share* of what arrives, at random."""
    above = (0x25, 1, 0, int(share * 0xFFFFFFFF))
    attach(sock, LOAD_RANDOM, above, DROP, PASS)


def lose_all(sock: socket.socket) -> None:
    """Lose everything that arrives."""
    attach(sock, DROP)


def lose_none(sock: socket.socket) -> None:
    """Lose nothing any more."""
    sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def lost(sock: socket.socket) -> int:
    """Return how many segments the socket has dropped, by the kernel's count."""
    counts = struct.unpack("9I", sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))
    return int(counts[8])


def attach(sock: socket.socket, *steps: tuple[int, int, int, int]) -> None:
    program = b"".join(struct.pack("HBBI", *step) for step in steps)
    kept = ctypes.create_string_buffer(program, len(program))
    address = ctypes.addressof(kept)
    sock.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(steps), address)
    )


def sockets(proxy: FaultProxy) -> list[socket.socket]:
    """Return both sockets of each connection, where both directions pass."""
    return [
        lane.writer.get_extra_info("socket")
        for connection in proxy.connections
        for lane in connection.lanes
    ]


def refusal() -> str:
    """Return why no filter can be attached here, empty where one can."""
    with socket.socket() as sock:
        try:
            lose_all(sock)
        except OSError as error:
            return str(error)
    return ""


needs_filters = pytest.mark.skipif(
    refusal() != "", reason=f"no filter can be attached to a socket: {refusal()}"
)
