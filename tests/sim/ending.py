"""Says whether all has come right again, after everything was healed."""

from feedhandler.tracker import TrackedBook
from tests.sim.client_side import Host
from tests.sim.findings import Findings
from tests.sim.judge import Judge
from tests.sim.record import Record
from tests.sim.venue_side import Peer
from tests.sim.world import SECOND, World

__all__ = ["Ending"]

STALE, CROSSED = 0x02, 0x08

# Who has not heard a heartbeat for longer may be about to give the connection up.
BEATS_WITHIN_NS = 80 * SECOND


def is_crossed(book: TrackedBook | None) -> bool:
    """Say whether a book is not LIVE because the venue said twice that it crosses."""
    return book is not None and book.flags & (CROSSED | STALE) == CROSSED


class Ending:
    """The last word on each connection of a life."""

    def __init__(self, world: World, findings: Findings, judge: Judge) -> None:
        self._world = world
        self._findings = findings
        self._judge = judge
        self._peers: list[Peer] = []

    def at_rest(self, hosts: list[Host]) -> bool:
        """Say whether all are as they should be, and wait for nothing."""
        return all(self._rests(host, self._judge.records[host]) for host in hosts)

    def _rests(self, host: Host, record: Record) -> bool:
        if record.wish is None:
            return True
        if record.asked_ns or record.pending or not self._is_right(host, record):
            return False
        now_ns = self._world.now_ns
        return (
            now_ns - record.beat_ns <= BEATS_WITHIN_NS
            and host.link is not None
            and all(pipe.held_ns <= now_ns for pipe in host.link.pipes)
        )

    def _is_right(self, host: Host, record: Record) -> bool:
        """Say whether a connection holds what it should, and all books are LIVE."""
        peer, wanted = served(host), self._judge.wanted(host)
        if peer is None or peer.closing or not record.open:
            return False
        if record.private and not record.attempts.logged_in:
            return False
        routes = host.session.routes
        if not names_held(peer) == set(wanted) == set(routes):
            return False
        return all(
            route.confirmed
            and (
                is_crossed(route.book)
                or (
                    not record.streams[route.channel].tainted
                    and (route.book is None or route.book.is_live)
                )
            )
            for route in routes.values()
        )

    def conclude(self, hosts: list[Host]) -> None:
        """Judge the end, when the network is empty and the market rests."""
        for host in hosts:
            record = self._judge.records[host]
            if record.to_hand:
                left = f"{record.to_hand} messages were not handed on"
                self._findings.fail("MF-13", host.name, left)
            if record.asked_ns:
                left = f"no answer to {list(record.asked_ns)}"
                self._findings.fail("MF-11", host.name, left)
            if record.wish is None:
                continue
            if self._is_right(host, record):
                self._compare(host)
            else:
                self._tell_what_is_wrong(host, record)

    def begin_farewell(self, hosts: list[Host]) -> None:
        """Tell all connections to end, for good."""
        self._peers = [peer for host in hosts if (peer := served(host)) is not None]
        for host in hosts:
            host.end()

    def end_farewell(self, hosts: list[Host]) -> None:
        """Judge whether they did, in time (CN-07)."""
        now_ns = self._world.now_ns
        for host in hosts:
            if host.socket is not None or host.session.wait_ns(now_ns) is not None:
                self._findings.fail("CN-07", host.name, "does not end")
        left = [peer.link.number for peer in self._peers if not peer.gone]
        if left:
            self._findings.fail("CN-07", "the venue", f"still has {left}")

    def _compare(self, host: Host) -> None:
        """Compare the books with the venue's as they are now (I-01)."""
        for channel in self._judge.wanted(host):
            book = host.session.routes[channel].book
            peer = served(host)
            if book is None or peer is None or is_crossed(book):
                continue
            if peer.truth.now(channel) != (book.bids(), book.asks()):
                self._findings.fail("I-01", host.name, f"{channel} is wrong at rest")

    def _tell_what_is_wrong(self, host: Host, record: Record) -> None:
        peer, wanted = served(host), self._judge.wanted(host)
        stale = [
            channel
            for channel, route in host.session.routes.items()
            if route.book is not None and not route.book.is_live
        ]
        if peer is not None and not peer.closing and names_held(peer) != set(wanted):
            held = sorted(names_held(peer))
            self._findings.fail("I-13", host.name, f"{held} for {sorted(wanted)}")
        else:
            self._findings.fail("I-22", host.name, f"{record.state}, STALE: {stale}")


def served(host: Host) -> Peer | None:
    """Return the venue's end of a connection."""
    return None if host.link is None else host.link.served


def names_held(peer: Peer) -> set[str]:
    """Return what a client is subscribed to, by the names that it uses."""
    return {name.partition("/")[0] for name in peer.gateway.subscriptions}
