"""One life, from a seed: clients, a venue, faults, healing, and the judge's word."""

import gc
import traceback
from dataclasses import dataclass
from random import Random

from feedhandler.authentication import ApiKey
from feedhandler.backoff import Backoff
from feedhandler.codec import MsgspecCodec, ScanCodec
from feedhandler.protocol.channels import CUSTOM, MARKET_DATA, NOTIFICATIONS, TRADING
from feedhandler.reconnect import Reconnect
from feedhandler.secret import Secret
from tests.sim.client_side import Client, Host
from tests.sim.embedder import Embedder
from tests.sim.ending import Ending
from tests.sim.faults import KINDS, LYING, PROVOKING, Chaos
from tests.sim.findings import Findings
from tests.sim.judge import Judge
from tests.sim.network import Fault, Network, Pipe
from tests.sim.venue_judge import VenueJudge
from tests.sim.venue_side import API_KEY, EPOCH_NS, SECRET, Venue
from tests.sim.world import SECOND, World

__all__ = ["Life", "Report", "live"]

FIRST_FAULT_NS = 4 * SECOND
SETTLES_WITHIN_NS = 300 * SECOND
# As long as a close may take, and the way there and back.
FAREWELL_NS = 4 * SECOND
LEAST_MESSAGES = 200
SKEWS_S = (0, 0, 0, -2, 2, -10, 10)

CONNECTIONS = (
    ("market a", MARKET_DATA),
    ("market b", MARKET_DATA),
    ("trading", TRADING),
    ("notices", NOTIFICATIONS),
    ("custom", CUSTOM),
)


@dataclass
class Report:
    """What a life was like, and what was wrong in it."""

    seed: int
    messages: int
    faults: list[str]
    close_codes: set[int]
    transitions: set[tuple[str, str]]
    log_hash: str
    failures: list[str]
    seconds: float
    settled_s: float


class Life:
    """All that there is in a life; *host_type* may be a client that is broken."""

    def __init__(
        self,
        seed: int,
        host_type: type[Host] = Host,
        kinds: list[str] | None = None,
    ) -> None:
        self.world = World(seed)
        random = self.world.random("life")
        self.length_ns = length_of(random)
        # So many trades and quotes in a life, whether it is long or short.
        pause_ns = self.length_ns // random.randint(30, 100)
        self.kinds = chosen(random) if kinds is None else kinds
        self.findings = Findings(self.world)
        provoked = not PROVOKING.isdisjoint(self.kinds)
        self.venue_judge = VenueJudge(self.world, self.findings, provoked)
        self.judge = Judge(self.world, self.findings, self.venue_judge.lies)
        self.ending = Ending(self.world, self.findings, self.judge)
        self.network = Network(self.world, self._spoiled)
        self.venue = Venue(self.world, self.network, self.venue_judge, pause_ns)
        self.client = Client(self.world, self._hosts(random, host_type))
        self.embedder = Embedder(self.world, self.client)
        self.chaos = Chaos(
            self.world,
            self.network,
            self.venue,
            self.client,
            self.embedder,
            self.venue_judge,
        )
        self.settled_ns = 0

    def _hosts(self, random: Random, host_type: type[Host]) -> list[Host]:
        key = ApiKey(API_KEY, Secret(SECRET))
        offset_ns = EPOCH_NS + random.choice(SKEWS_S) * SECOND
        # Chances of their own: what a seed stands for stays as it is.
        ways = self.world.random("ways")
        audits = "alter" in self.kinds or random.random() < 0.2
        hosts = []
        for name, endpoint in CONNECTIONS:
            private = endpoint != MARKET_DATA
            changes_only = random.random() < 0.2
            host = host_type(
                self.world, self.network, self.judge, name, endpoint,
                codec=ways.choice((MsgspecCodec, ScanCodec))(),
                utc_offset_ns=offset_ns,
                changes_only=changes_only,
                last_in_read=ways.random() < 0.5 and not changes_only,
                resync_interval_ns=20 * SECOND if audits else 0,
                quiet_after_ns=random.choice((0, 5, 30)) * SECOND,
                key=key if private else None,
                reconnect=Reconnect(Backoff(seed=random.randrange(1 << 30))),
            )  # fmt: skip
            self.judge.meet(host, private)
            hosts.append(host)
        return hosts

    def _spoiled(
        self, pipe: Pipe, fault: Fault, payload: bytes, became: list[bytes]
    ) -> None:
        self.world.note("fault", f"spoils {'up' if pipe.up else 'down'}", fault.kind)
        if fault.kind in LYING:
            for lie in became:
                if lie != payload:
                    self.venue_judge.lied(lie)

    def run(self) -> Report:
        """Live it."""
        start_ns = self.world.now_ns
        try:
            self._live(start_ns + self.length_ns)
        except Exception:
            self.findings.fail("I-23", "somebody", traceback.format_exc(limit=-4))
        judge = self.judge
        return Report(
            self.world.seed, self.messages, self.chaos.done, judge.close_codes,
            judge.transitions, self.world.log_hash(), self.findings.failures,
            (self.world.now_ns - start_ns) / SECOND, self.settled_ns / SECOND,
        )  # fmt: skip

    def _live(self, heal_ns: int) -> None:
        world, hosts = self.world, self.client.hosts
        self.chaos.plan(self.kinds, world.now_ns + FIRST_FAULT_NS, heal_ns)
        self.client.start()
        self.embedder.start(5 * SECOND // 2)
        for second in (1, 2, 3, 3):
            world.after(second * SECOND, self.venue.burst, 8)
        world.run(heal_ns)
        self.embedder.resting = True
        self.chaos.heal()
        for rest_ns in (SECOND, 2 * SECOND):
            # Who missed the last update of all cannot know that before the next.
            self.venue.stir()
            world.run(world.now_ns + rest_ns)
            self._settle(heal_ns)
        while self.messages < LEAST_MESSAGES and self.client.is_open:
            self.venue.burst(8)
            world.run(world.now_ns + SECOND)
        self.venue.pumping = False
        world.run(world.now_ns + SECOND)
        # Who finds the market too quiet asks first.
        self._settle(heal_ns)
        self.ending.conclude(hosts)
        self.ending.begin_farewell(hosts)
        world.run(world.now_ns + FAREWELL_NS)
        self.ending.end_farewell(hosts)

    @property
    def messages(self) -> int:
        """How many messages have arrived somewhere."""
        return self.judge.messages + self.venue_judge.messages

    def _settle(self, heal_ns: int) -> None:
        """Wait until every connection is as it should be, but not for ever."""
        world = self.world
        while world.now_ns < heal_ns + SETTLES_WITHIN_NS:
            if self.ending.at_rest(self.client.hosts):
                break
            world.run(world.now_ns + SECOND)
        self.settled_ns = world.now_ns - heal_ns


def length_of(random: Random) -> int:
    """Choose how long a life is until it is healed: mostly a minute or two."""
    longest_s = 600 if random.random() < 0.03 else 75
    return random.randint(60, longest_s) * SECOND


def chosen(random: Random) -> list[str]:
    """Choose one to eight faults."""
    kinds, weights = list(KINDS), list(KINDS.values())
    return random.choices(kinds, weights, k=random.randint(1, 8))


def live(seed: int) -> Report:
    """Live the life of a seed, and return what it was like."""
    # A life ends before the collector would find anything.
    gc.disable()
    try:
        life = Life(seed)
        report = life.run()
        life.world.forget()
        return report
    finally:
        gc.enable()
