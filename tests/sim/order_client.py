"""A client process with an order desk: two connections, and a flow as a feed has it.

What dies with it is all that it knew.
"""

from collections.abc import Callable
from random import Random

from feedhandler.authentication import ApiKey
from feedhandler.backoff import Backoff
from feedhandler.errors import GuardRefused, NotConnected, Throttled, UnknownOrder
from feedhandler.order import Cause, Operation, Order
from feedhandler.orders import Orders
from feedhandler.protocol.channels import NOTIFICATIONS, TRADING
from feedhandler.protocol.messages import (
    Balance,
    Position,
    SystemNotification,
    UserTradeData,
)
from feedhandler.reconnect import Reconnect
from feedhandler.secret import Secret
from feedhandler.tracker import Action
from feedhandler.trading import CHANNELS, OrderFlow, Sent
from tests.sim.client_side import CLOSE_TIMEOUT_NS, Client, Host, Socket
from tests.sim.network import END, FOREVER_NS, Network, Pipe
from tests.sim.order_judge import OrderJudge
from tests.sim.venue_side import API_KEY, EPOCH_NS, SECRET
from tests.sim.world import World

__all__ = ["Make", "OrderHost", "OrderSocket", "Process"]

DELIVER = int(Action.DELIVER)
KINDS = ("user_orders", "user_trades", "account_updates")
NOTICES = "system_notifications"


def reset(pipe: Pipe, now_ns: int) -> None:
    """End what a client sends: nothing of it comes any more, but its end."""
    held_ns = pipe.held_ns
    pipe.cut()
    if held_ns > now_ns:
        pipe.hold(held_ns)


class OrderSocket(Socket):
    """A connection whose end is a reset where the client gives it up: see Listener."""

    def _abandon(self, reason: str | None) -> None:
        if self.closing:
            return
        self.code, self.reason = 1006, reason or "given up"
        self._start_closing()
        self.let_go()
        self.lose()

    def act(self, actions: int) -> None:
        """Do what the session asks for, and hand on what a frame has brought."""
        super().act(actions)
        host = self.host
        assert isinstance(host, OrderHost)
        if host.process.by_frame and (actions & DELIVER or host.session.events):
            host.take()

    def watch_close(self, now_ns: int) -> None:
        """Let go of the connection if its close takes too long."""
        if now_ns - self.closing_ns >= CLOSE_TIMEOUT_NS:
            self.let_go()
            self.lose()

    def let_go(self) -> None:
        """Have the kernel deliver nothing of what it still has."""
        reset(self.link.up, self.host.now_ns)


class OrderHost(Host):
    """A connection that hands on what it is told to the flow of its process."""

    socket_type = OrderSocket
    process: "Process"

    def take(self) -> None:
        """Take what the session has to tell: events, messages, then answers."""
        session, process = self.session, self.process
        events, messages = session.take_events(), session.take_messages()
        if events:
            self.watcher.took(self, events, [])
        if messages:
            self.watcher.handed(self, messages)
        for message in messages:
            if self is process.trading or isinstance(message, SystemNotification):
                process.flow.hear(message, self.now_ns)
        if answers := session.take_answers():
            self.watcher.took(self, [], answers)
        for answer in answers:
            process.flow.answered(answer)


class Make:
    """What a process is made of; a broken one has something else there."""

    flow: type[OrderFlow] = OrderFlow
    orders: type[Orders] = Orders
    socket: type[OrderSocket] = OrderSocket

    def __init__(self, orders: int = 90, urgent: int = 10) -> None:
        self.limit, self.urgent = orders, urgent


class Process:
    """One client process; *make* says of what."""

    def __init__(
        self,
        world: World,
        network: Network,
        judge: OrderJudge,
        random: Random,
        make: Make,
        name: str = "p",
    ) -> None:
        self.name = name
        self.world = world
        self.judge = judge
        self.dead = False
        # Most hosts do both; to the flow it must not matter.
        self.timers_first = random.random() < 0.5
        self.by_frame = random.random() < 0.7
        self.fills: dict[tuple[str, str], float] = {}
        key = ApiKey(API_KEY, Secret(SECRET), orders=make.limit, urgent=make.urgent)
        places = ((f"{name} trading", TRADING), (f"{name} notices", NOTIFICATIONS))
        self.trading, self.notices = hosts = [
            OrderHost(
                world, network, judge, title, endpoint, key=key,
                utc_offset_ns=EPOCH_NS,
                reconnect=Reconnect(Backoff(seed=random.randrange(1 << 30)), True),
            )
            for title, endpoint in places
        ]  # fmt: skip
        self.hosts = hosts
        for host in hosts:
            host.process = self
            host.socket_type = make.socket
            judge.meet(host, True)
        channels = random.sample(KINDS, len(KINDS))
        for channel in channels:
            self.trading.subscribe(channel)
        self.notices.subscribe(NOTICES)
        assert set(channels) == set(CHANNELS)
        self.flow = make.flow(
            self.trading.session, hearers=[self], orders=make.orders()
        )
        self.client = Loop(world, self)
        judge.desk(self)

    # ── what the flow tells ───────────────────────────────────────────────────────

    def on_order(
        self,
        order: Order,
        cause: Cause,
        operation: Operation | None,
        code: str | None,
        time_ms: int,
        is_replay: bool,
    ) -> None:
        """Hear of an order."""
        self.judge.order(self, order, cause)

    def on_fill(
        self, data: UserTradeData, order: Order | None, is_replay: bool
    ) -> None:
        """Hear of a fill."""
        self.judge.fill(self, data)

    def on_account(self, rows: list[Balance | Position], time_ms: int) -> None:
        """Hear of the account, which is looked at in the end."""

    # ── what it asks ──────────────────────────────────────────────────────────────

    def ask(self, act: Callable[[], Sent], flush: bool = True) -> Sent | None:
        """Have the flow ask for something and send it; None if it refuses."""
        try:
            sent = act()
        except (NotConnected, Throttled, GuardRefused, UnknownOrder) as error:
            self.world.note(self.name, "refused", repr(error))
            return None
        self.judge.asks(self.trading, sent.request_id)
        if flush:
            self.trading.flush()
        return sent

    @property
    def now_ns(self) -> int:
        """The client's monotonic clock."""
        return self.world.now_ns

    @property
    def is_resolved(self) -> bool:
        """Whether all is known, and new orders go out."""
        flow = self.flow
        return flow.is_ready and not any(
            order.is_unknown or "unknown" in order.pending.values()
            for order in flow.orders.open
        )

    def die(self, late_ns: int = 0) -> None:
        """End with kill -9: the kernel still sends what it was given."""
        self.dead = True
        for host in self.hosts:
            socket = host.socket
            if socket is not None:
                socket.gone = True
                if late_ns:
                    socket.link.up.hold(self.now_ns + late_ns)
                socket.link.up.send(END)
                socket.link.down.hold(FOREVER_NS)
            host.socket = None
            self.judge.buries(host)


class Loop(Client):
    """The loop of a process: it beats for its connections, and then for its flow."""

    def __init__(self, world: World, process: Process) -> None:
        super().__init__(world, list(process.hosts))
        self._process = process

    def _beat(self) -> None:
        if not self._process.dead:
            super()._beat()

    def turn(self) -> None:
        """Let time pass for the connections, and then for the flow."""
        super().turn()
        for host in self._process.hosts:
            host.take()
        self._process.flow.tick(self._world.now_ns)
        self._process.trading.flush()
        self._process.judge.beat(self._process)

    def _go_on(self) -> None:
        """Go on: some loops look at their timers before they read."""
        if self._stuck == 1 and self._process.timers_first:
            self.turn()
        super()._go_on()


def is_sending(host: Host) -> bool:
    """Tell whether a connection can be ended now: it is open."""
    socket = host.socket
    return socket is not None and socket.open and not socket.gone
