"""What goes wrong in a life: a seeded plan, and how each kind of fault is done."""

from collections.abc import Callable
from random import Random

from feedhandler.protocol.channels import CUSTOM, NOTIFICATIONS, TRADING
from tests.sim.client_side import Client, Host
from tests.sim.embedder import Embedder
from tests.sim.network import FOREVER_NS, Fault, Link, Network
from tests.sim.rules import CLOSE_CODES
from tests.sim.venue_judge import VenueJudge
from tests.sim.venue_side import Venue
from tests.sim.world import MS, SECOND, World

__all__ = ["KINDS", "LYING", "PROVOKING", "Chaos"]

PRIVATE = (TRADING, NOTIFICATIONS, CUSTOM)
BOOK, UPDATE = b'"type":"orderbook', b'"type":"orderbook_update"'
LOGIN = b'"type":"auth_response"'
ANSWERS = ("submit_order", "cancel_order", "modify_order", "batch_orders")
# All but those after which a connection is given up.
GENTLE_CODES = (1000, 1001, 1006, 1009, 1011, 1012, 1013, 3500, 4001, 4003, 4004, 4999)

KINDS = {
    # the network
    "rst": 4, "fin": 3, "half_cut": 3, "half_open": 3, "blackhole": 4, "deaf": 3,
    "mute": 3, "stall": 4, "lag": 2, "refuse": 3, "swallow": 2, "flap": 2,
    "outage": 0.2,
    # messages
    "drop": 5, "duplicate": 4, "swap": 5, "truncate": 2, "corrupt": 2, "alter": 2,
    "leap": 2, "back": 2, "misroute": 2,
    "drop_up": 3, "duplicate_up": 2, "truncate_up": 2, "corrupt_up": 1,
    # the venue
    "skip": 5, "repeat": 3, "withhold": 4, "freeze": 3, "silence": 2,
    "stale_snapshot": 3, "crossed_snapshot": 2, "close": 5, "close_all": 3,
    "no_code": 1, "restart": 3, "crash": 2, "no_heartbeats": 2,
    # authentication and answers
    "login_lost": 3, "login_late": 2, "login_cut": 2, "login_top": 1, "login_data": 1,
    "login_both": 1, "no_answer": 2, "late_answer": 2, "wrong_answer": 2,
    "cut_answer": 2, "strangers": 2, "exhausted": 2, "revoked": 0.4,
    # the client's own process
    "sleep": 3, "flood": 2, "mistake": 1,
}  # fmt: skip
"""Every kind of fault, and how often it is chosen."""

LYING = {"alter", "leap", "back", "misroute"}
"""These make messages that are not true, though nothing in them shows that."""

PROVOKING = {"blackhole", "mute", "stall", "duplicate_up", "exhausted", "alter"}
"""After these the venue may count more in a minute than was sent in one."""


class Stranger:
    """Somebody else who uses the key, and answers his heartbeats."""

    def is_overdue(self, now_ns: int) -> bool:
        """Say whether he has left one unanswered."""
        return False


class Chaos:
    """Does what a plan says, at its times."""

    def __init__(
        self,
        world: World,
        network: Network,
        venue: Venue,
        client: Client,
        embedder: Embedder,
        judge: VenueJudge,
    ) -> None:
        self.done: list[str] = []
        self._world = world
        self._network = network
        self._venue = venue
        self._client = client
        self._embedder = embedder
        self._judge = judge
        self._random: Random = world.random("faults")
        self._links: dict[Link, None] = {}
        self._withheld: dict[str, None] = {}
        self._strangers: list[Stranger] = []

    def plan(self, kinds: list[str], from_ns: int, until_ns: int) -> None:
        """Have each of *kinds* happen at some time."""
        for kind in kinds:
            at_ns = self._random.randrange(from_ns, until_ns)
            self._world.at(at_ns, self._do, kind, until_ns)

    def _do(self, kind: str, until_ns: int) -> None:
        self.done.append(kind)
        self._world.note("fault", kind)
        most_ns = max(until_ns - self._world.now_ns, SECOND)
        DOING[kind](self, most_ns)

    def heal(self) -> None:
        """Have nothing be wrong any more, but for what is beyond healing."""
        self._world.note("fault", "healed")
        self._network.heal()
        for link in self._links:
            for pipe in link.pipes:
                pipe.heal()
        for channel in self._withheld:
            self._venue.faults.release(channel)
        self._venue.faults.clear()
        for stranger in self._strangers:
            self._venue.vacate(stranger)
            self._judge.vacated(stranger)

    # ── targets ───────────────────────────────────────────────────────────────────

    def _host(self, endpoints: tuple[str, ...] = ()) -> Host:
        hosts = [
            h for h in self._client.hosts if not endpoints or h.endpoint in endpoints
        ]
        return self._random.choice(hosts)

    def _links_now(self) -> list[Link]:
        """Return the connections that a fault of the network meets: one, or all."""
        links = [host.link for host in self._client.hosts if host.link is not None]
        if links and self._random.random() < 0.7:
            links = [self._random.choice(links)]
        self._links |= dict.fromkeys(links)
        return links

    def _book(self) -> str:
        books = self._venue.books()
        return self._random.choice(books) if books else "orderbook:AAPL:10"

    def _duration(self, most_ns: int, longest_ns: int = 40 * SECOND) -> int:
        """Return for how long something is so: rather short, and healed in time."""
        longest_ns = min(longest_ns, most_ns)
        duration_ns = int(self._random.expovariate(1) * longest_ns / 3)
        return min(max(duration_ns, 100 * MS), longest_ns)

    # ── the network ───────────────────────────────────────────────────────────────

    def rst(self, most_ns: int) -> None:
        for link in self._links_now():
            link.cut()

    def fin(self, most_ns: int) -> None:
        for link in self._links_now():
            link.finish()

    def half_cut(self, most_ns: int) -> None:
        """The client is told, the venue is not."""
        for link in self._links_now():
            link.up.hold()
            link.down.cut()

    def half_open(self, most_ns: int) -> None:
        """The venue is told, the client is not."""
        for link in self._links_now():
            link.up.cut()
            link.down.hold()

    def blackhole(self, most_ns: int) -> None:
        self._hold(most_ns, up=True, down=True)

    def deaf(self, most_ns: int) -> None:
        self._hold(most_ns, up=False, down=True)

    def mute(self, most_ns: int) -> None:
        self._hold(most_ns, up=True, down=False)

    def _hold(self, most_ns: int, *, up: bool, down: bool) -> None:
        """Lose all that is sent from now on, or let it wait for a while."""
        until_ns = FOREVER_NS
        if self._random.random() < 0.6:
            until_ns = self._world.now_ns + self._duration(most_ns, 120 * SECOND)
        for link in self._links_now():
            if up:
                link.up.hold(until_ns)
            if down:
                link.down.hold(until_ns)

    def stall(self, most_ns: int) -> None:
        until_ns = self._world.now_ns + self._duration(most_ns, 20 * SECOND)
        for link in self._links_now():
            self._random.choice(link.pipes).hold(until_ns)
        self._venue.burst(3)

    def lag(self, most_ns: int) -> None:
        for link in self._links_now():
            for pipe in link.pipes:
                pipe.slow_down(self._random.randrange(MS, 250 * MS))

    def refuse(self, most_ns: int) -> None:
        self._network.refuses = True
        self._cut_for(self._duration(most_ns))

    def swallow(self, most_ns: int) -> None:
        self._network.swallows = True
        self._cut_for(self._duration(most_ns))

    def flap(self, most_ns: int) -> None:
        self._network.flaps = True
        self._cut_for(self._duration(most_ns))

    def outage(self, most_ns: int) -> None:
        """Refuse for so long that every attempt fails."""
        self._network.refuses = True
        for link in self._links_now()[:1]:
            link.cut()
        self._world.after(1_500 * SECOND, self._mend)

    def _cut_for(self, duration_ns: int) -> None:
        for link in self._links_now():
            link.cut()
        self._world.after(duration_ns, self._mend)

    def _mend(self) -> None:
        network = self._network
        network.refuses = network.swallows = network.flaps = False

    # ── messages ──────────────────────────────────────────────────────────────────

    def _spoil(self, kind: str, up: bool, match: bytes, most: int = 1) -> None:
        count = self._random.randint(1, most)
        for link in self._links_now():
            (link.up if up else link.down).faults.append(Fault(kind, count, match))

    def _spoil_down(self, kind: str, most: int = 1) -> None:
        match = self._random.choice((b"", BOOK, UPDATE, UPDATE))
        self._spoil(kind, False, match, most)
        self._venue.burst(self._random.randint(0, 3))

    def drop(self, most_ns: int) -> None:
        self._spoil_down("drop", 8)

    def duplicate(self, most_ns: int) -> None:
        self._spoil_down("duplicate", 4)

    def swap(self, most_ns: int) -> None:
        self._spoil_down("swap", 4)

    def truncate(self, most_ns: int) -> None:
        self._spoil_down("truncate", 2)

    def corrupt(self, most_ns: int) -> None:
        self._spoil_down("corrupt", 2)

    def alter(self, most_ns: int) -> None:
        self._spoil("alter", False, BOOK, 2)

    def leap(self, most_ns: int) -> None:
        self._spoil("leap", False, UPDATE, 2)

    def back(self, most_ns: int) -> None:
        self._spoil("back", False, UPDATE, 2)

    def misroute(self, most_ns: int) -> None:
        self._spoil("misroute", False, BOOK, 2)

    def drop_up(self, most_ns: int) -> None:
        self._spoil("drop", True, b"", 2)

    def duplicate_up(self, most_ns: int) -> None:
        self._spoil("duplicate", True, b"", 2)

    def truncate_up(self, most_ns: int) -> None:
        self._spoil("truncate", True, b"", 1)

    def corrupt_up(self, most_ns: int) -> None:
        self._spoil("corrupt", True, b"", 4)

    # ── the venue ─────────────────────────────────────────────────────────────────

    def skip(self, most_ns: int) -> None:
        self._venue.faults.skip(self._book(), self._random.randint(1, 8))
        self._venue.burst(self._random.randint(1, 6))

    def repeat(self, most_ns: int) -> None:
        self._venue.faults.repeat(self._book(), self._random.randint(1, 4))

    def withhold(self, most_ns: int) -> None:
        channel = self._book()
        self._withheld[channel] = None
        self._venue.faults.withhold(channel, self._random.randint(1, 4))
        self._venue.burst(self._random.randint(1, 4))
        self._world.after(
            self._duration(most_ns, 3 * SECOND), self._venue.faults.release, channel
        )

    def freeze(self, most_ns: int) -> None:
        channel = self._book()
        self._venue.faults.freeze(channel)
        self._world.after(self._duration(most_ns), self._venue.faults.thaw, channel)

    def silence(self, most_ns: int) -> None:
        channel = self._book()
        self._venue.faults.mute(channel)
        self._world.after(self._duration(most_ns), self._venue.faults.thaw, channel)
        self._ask_for_snapshots()

    def stale_snapshot(self, most_ns: int) -> None:
        self._spoil_snapshot("stale")

    def crossed_snapshot(self, most_ns: int) -> None:
        self._spoil_snapshot("crossed")

    def _spoil_snapshot(self, kind: str) -> None:
        channel, count = self._book(), self._random.randint(1, 2)
        self._venue.faults.spoil_snapshot(channel, kind, count)  # type: ignore[arg-type]
        self._ask_for_snapshots()

    def _ask_for_snapshots(self) -> None:
        """Lose something, so that snapshots are asked for."""
        for channel in self._venue.books():
            self._venue.faults.skip(channel)
        self._venue.burst(5)

    def close(self, most_ns: int) -> None:
        """Close one connection with any code."""
        codes = CLOSE_CODES if self._random.random() < 0.6 else GENTLE_CODES
        code = self._random.choice([code for code in codes if code != 1006])
        self._close_some(code, self._links_now()[:1])

    def close_all(self, most_ns: int) -> None:
        code = self._random.choice([code for code in GENTLE_CODES if code != 1006])
        self._venue.end_all(code, "fault")

    def no_code(self, most_ns: int) -> None:
        self._close_some(None, self._links_now())

    def _close_some(self, code: int | None, links: list[Link]) -> None:
        for link in links:
            if link.served is not None:
                link.served.close(code, "fault")

    def restart(self, most_ns: int) -> None:
        self._venue.restart(self._duration(most_ns, 30 * SECOND))

    def crash(self, most_ns: int) -> None:
        self._venue.restart(self._duration(most_ns, 30 * SECOND), crash=True)

    def no_heartbeats(self, most_ns: int) -> None:
        self._venue.faults.heartbeats_stopped = True

    # ── authentication and answers ────────────────────────────────────────────────

    def _log_in_again(self, fault: Fault | None = None) -> None:
        host = self._host(PRIVATE)
        if fault is not None:
            self._network.arm(host.endpoint, False, fault)
        if host.link is not None:
            host.link.cut()

    def login_lost(self, most_ns: int) -> None:
        self._log_in_again(Fault("drop", 1, LOGIN))

    def login_late(self, most_ns: int) -> None:
        """Let the answer take longer than we wait for it, or nearly."""
        self._log_in_again(Fault("late", 1, LOGIN))

    def login_cut(self, most_ns: int) -> None:
        self._log_in_again(Fault("cut", 1, LOGIN))

    def login_top(self, most_ns: int) -> None:
        self._log_in_again(Fault("login_top", 1, LOGIN))

    def login_data(self, most_ns: int) -> None:
        self._log_in_again(Fault("login_data", 1, LOGIN))

    def login_both(self, most_ns: int) -> None:
        self._log_in_again(Fault("login_both", 1, LOGIN))

    def _spoil_answers(self, kind: str, delay_s: float = 0.0) -> None:
        for action in ANSWERS:
            self._venue.faults.spoil_answer(
                action,
                kind,  # type: ignore[arg-type]
                processed=self._random.random() < 0.5,
                delay_s=delay_s,
            )

    def no_answer(self, most_ns: int) -> None:
        self._spoil_answers("drop")

    def late_answer(self, most_ns: int) -> None:
        self._spoil_answers("delay", self._random.uniform(0.1, 15))

    def wrong_answer(self, most_ns: int) -> None:
        self._spoil_answers("error")

    def cut_answer(self, most_ns: int) -> None:
        self._spoil_answers("cut")

    def strangers(self, most_ns: int) -> None:
        """Have others use the key: there is no room for all of ours."""
        for _ in range(self._random.randint(3, 5)):
            stranger = Stranger()
            if self._venue.occupy(stranger):
                self._strangers.append(stranger)
                self._judge.occupied(stranger)
        self._log_in_again()

    def exhausted(self, most_ns: int) -> None:
        """Have others use up what the key may do in this minute."""
        self._venue.exhaust(self._random.choice((0, 100)), self._random.choice((0, 10)))
        self._log_in_again()

    def revoked(self, most_ns: int) -> None:
        self._venue.revoke()
        self._log_in_again()

    # ── the client's own process ──────────────────────────────────────────────────

    def sleep(self, most_ns: int) -> None:
        self._client.stall(self._duration(most_ns, 100 * SECOND))

    def flood(self, most_ns: int) -> None:
        self._embedder.flood()

    def mistake(self, most_ns: int) -> None:
        self._embedder.mistake(self._host(("/ws/market-data", CUSTOM)))


DOING: dict[str, Callable[[Chaos, int], None]] = {
    kind: getattr(Chaos, kind) for kind in KINDS
}
