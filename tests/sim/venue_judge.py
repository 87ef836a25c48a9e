"""Says whether what clients do is right, as far as the venue can see it."""

from typing import Any

import msgspec

from tests.sim.findings import Findings
from tests.sim.limits import Limits
from tests.sim.venue_side import Peer
from tests.sim.world import World

__all__ = ["VenueJudge"]

VENUE = "the venue"
MOST_CONNECTIONS = 5
LOGIN, ERROR = b'{"type":"auth_response"', b'{"type":"error"'
SUCCESS, OVER_LIMIT = b'"status":"success"', b'"code":"rate_limit_exceeded"'


class VenueJudge:
    """Sees what arrives at the venue and what it answers.

    *limits_provoked*: a fault may be the reason that a limit is met.
    """

    def __init__(self, world: World, findings: Findings, limits_provoked: bool) -> None:
        self.messages = 0
        self.lies: set[bytes] = set()
        self._world = world
        self._findings = findings
        self._limits = Limits(findings)
        self._limits_provoked = limits_provoked
        self._authenticated: dict[Any, None] = {}

    def received(self, peer: Peer, payload: bytes) -> None:
        """See a message arrive, and count it exactly (I-14)."""
        self._note(peer, "gets", payload)
        self.messages += 1
        if self._limits_provoked:
            return
        try:
            message = msgspec.json.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        self._limits.count(message, peer, VENUE, self._world.now_ns)

    def answered(self, peer: Peer, payload: bytes) -> None:
        """See an answer: none that a limit was met, unless a fault is the reason."""
        if payload.startswith(ERROR) and OVER_LIMIT in payload:
            if not self._limits_provoked:
                self._findings.fail(
                    "I-14", VENUE, f"refuses for the limit: {payload!r}"
                )
        elif payload.startswith(LOGIN) and SUCCESS in payload:
            self.occupied(peer)

    def occupied(self, user: Any) -> None:
        """Hear of another connection with the key (I-16)."""
        self._authenticated[user] = None
        if len(self._authenticated) > MOST_CONNECTIONS:
            count = len(self._authenticated)
            self._findings.fail("I-16", VENUE, f"{count} connections of one key")

    def vacated(self, user: Any) -> None:
        """Hear that it is no more."""
        self._authenticated.pop(user, None)

    def closed(self, peer: Peer, code: int) -> None:
        """See the venue close a connection."""
        self._note(peer, "closes", code)
        self.vacated(peer)

    def gone(self, peer: Peer) -> None:
        """See the end of a connection at the venue."""
        self._note(peer, "gone")
        self.vacated(peer)

    def lied(self, payload: bytes) -> None:
        """Hear that a message is not true, though nothing in it shows that."""
        self.lies.add(payload)

    def _note(self, peer: Peer, what: str, detail: Any = None) -> None:
        self._world.note(f"venue {peer.link.number}", what, detail)
