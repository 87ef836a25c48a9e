"""The protocol state of one connection to the venue.

Bytes, events and time in; actions out. Knows no socket, no configuration file and no
clock. Market data goes straight to the Sink (tracker.Tracker); everything else waits in
*outbox*, *events*, *messages* and *answers* for whoever hosts the session.
"""

import re
from typing import NamedTuple

from libc.stdint cimport INT64_MAX, uint32_t

from feedhandler.codec cimport Codec
from feedhandler.counters cimport Counters
from feedhandler.sink cimport Sink
from feedhandler.tracker cimport Action, Count, Kind, ROUND_TRIP, Route, TrackedBook

from feedhandler.authentication import Login, Outcome
from feedhandler.errors import NotConnected, Throttled
from feedhandler.protocol import messages
from feedhandler.protocol.codes import ABNORMAL, CloseAction, ErrorCode, action_for
from feedhandler.protocol.limits import (
    ANSWER_TIMEOUT_S,
    HEARTBEAT_S,
    HEARTBEAT_TIMEOUT_S,
    retry_after_ns,
)
from feedhandler.reconnect import Reconnect


cdef int64_t SECOND_NS = 1_000_000_000
cdef int64_t HEARTBEAT_NS = HEARTBEAT_S * SECOND_NS
cdef int64_t HEARTBEAT_TIMEOUT_NS = HEARTBEAT_TIMEOUT_S * SECOND_NS
cdef int64_t ANSWER_TIMEOUT_NS = ANSWER_TIMEOUT_S * SECOND_NS
cdef int64_t LATE_HEARTBEAT_NS = 5 * SECOND_NS      # beyond its time: it counts as missed
# Ten seconds each, less the beat at which the clock is looked at.
cdef int64_t SILENCE_NS = 9_900_000_000             # of everything: ask whether he is there
cdef int64_t PONG_TIMEOUT_NS = 9_900_000_000
cdef int64_t CLOSE_PATIENCE_NS = 2 * SECOND_NS      # for the close after a failed login
cdef int64_t USEFUL_NS = 30 * SECOND_NS

cdef enum:
    MOST_MESSAGES = 65_536      # of private channels, that the host did not take
    MOST_LATE = 1_024           # requests that had no answer in time, and may have one yet


# Where each event takes a session from each of its states.
TRANSITIONS = {
    State.CONNECTING: {
        "opened": State.OPEN,
        "closed": State.CLOSED,
    },
    State.OPEN: {
        "authenticated": State.AUTHENTICATED,
        "subscribed": State.SUBSCRIBED,
        "closing": State.CLOSING,
        "closed": State.CLOSED,
    },
    State.AUTHENTICATED: {
        "subscribed": State.SUBSCRIBED,
        "closing": State.CLOSING,
        "closed": State.CLOSED,
    },
    State.SUBSCRIBED: {
        "holds nothing": State.OPEN,
        "holds nothing, authenticated": State.AUTHENTICATED,
        "closing": State.CLOSING,
        "closed": State.CLOSED,
    },
    State.CLOSING: {
        "closed": State.CLOSED,
    },
    State.CLOSED: {
        "connecting": State.CONNECTING,
        "failed": State.FAILED,
    },
    State.FAILED: {},
}

CONNECTED = (State.OPEN, State.AUTHENTICATED, State.SUBSCRIBED)

ORDER_ACTIONS = ("submit_order", "cancel_order", "modify_order", "batch_orders")
PRIVATE = (
    messages.OrderUpdate,
    messages.UserTrade,
    messages.AccountUpdate,
    messages.SystemNotification,
    messages.UserNotification,
    messages.CustomAlert,
)
RESPONSES = (messages.OrderResponse, messages.BatchResponse)

# Channel names in the text of an error, whole: one may be the beginning of another.
NAMES = re.compile(r"[a-z_]+(?::[A-Z0-9](?:[A-Z0-9._-]*[A-Z0-9_-])?)?(?::[0-9a-z]+)?")


class Request(NamedTuple):
    """A request that waits for its answer."""

    action: str
    channels: list
    sent_ns: int


class Answer(NamedTuple):
    """What became of a request of ask().

    *message* is the venue's response or Error; None where there was none in 10 s, or the
    connection ended before: what became of it is not known. One that comes after those
    10 s is a second Answer of the same id.
    """

    id: str
    action: str
    message: object


class Subscribed(NamedTuple):
    """Among the messages: the venue confirmed a private channel, asked for at *asked_ns*.

    What it tells of the channel's present state comes after this.
    """

    channel: str
    asked_ns: int


class Disconnected(NamedTuple):
    """Among the messages: the connection ended, and with it every answer to come."""


cdef class Session(Tracker):
    """The protocol state of one connection, which may be made many times.

    *sink* gets the events; *counters* has at least tracker.COUNTERS and HISTOGRAMS; times
    given to the session are monotonic nanoseconds, times in records have *utc_offset_ns*
    added. Where tick() is not called for *stall_after_ns* (0: never mind), what is read is
    late, and every book STALE. Throttles (throttle.Throttle) limit what is put in the outbox. With a *key*
    (authentication.ApiKey) it authenticates before anything else. *reconnect*
    (reconnect.Reconnect) decides what follows a close. *name* tells its events from those
    of other connections. One thread, that of the loop which owns the connection.

    The host connects when wait_ns() says so, and calls connecting(), opened(), feed(),
    tick() and closed() as things happen.
    """

    def __cinit__(
        self,
        Codec codec not None,
        Sink sink not None,
        Counters counters not None,
        subscribe_throttle not None,
        other_throttle not None,
        *,
        int64_t utc_offset_ns=0,
        bint changes_only=False,
        bint last_in_read=False,
        int64_t quiet_after_ns=0,
        int64_t stall_after_ns=1_000_000_000,
        int64_t resync_interval_ns=0,
        key=None,
        reconnect=None,
        str name="",
    ):
        self.name = name
        self.subscribe_throttle = subscribe_throttle
        self.other_throttle = other_throttle
        self.stall_after_ns = stall_after_ns or INT64_MAX // 2
        self.resync_interval_ns = resync_interval_ns
        self.key = key
        self.login = None if key is None else Login(key)
        self.reconnect = reconnect or Reconnect()
        self.state = State.CONNECTING
        self.outbox = []
        self.messages = []
        self.answers = []
        self.requests = {}
        self.late = {}
        self.to_subscribe = []
        self.to_unsubscribe = []

    # ── the life of a connection ──────────────────────────────────────────────────────

    def wait_ns(self, int64_t now_ns):
        """Return how long to wait before the next attempt; None for ever."""
        if self.is_ended or self.state == State.FAILED:
            return None
        wait_ns = max(0, self.retry_ns - now_ns)
        if self.key is not None:
            wait_ns = max(wait_ns, self.key.wait_ns(now_ns))
        return wait_ns

    def connecting(self, int64_t now_ns):
        """Note that a connection is being made."""
        self.now_ns = now_ns
        if self.state != State.CONNECTING:
            self.move("connecting")
        if self.login is not None:
            self.login.expect()

    def opened(self, int64_t now_ns) -> int:
        """Note that the connection is open: authenticate, or subscribe to all held."""
        self.now_ns = now_ns
        self.move("opened")
        self.connected(now_ns)
        self.counters.add(Count.CONNECTS, 1)
        self.opened_ns = now_ns
        self.heartbeat_ns = now_ns
        self.missed = 0
        self.pinged_ns = 0
        self.patient_until_ns = 0
        self.verdict = None
        self.was_subscribed = False
        self.has_dropped = False
        self.outbox.clear()
        self.requests.clear()
        self.late.clear()
        self.to_unsubscribe.clear()
        self.to_subscribe[:] = self.routes
        if self.login is not None:
            self.login.begin()
        return self.collect(now_ns)

    def closing(self, int64_t now_ns):
        """Note that we began to close: nothing that still comes is used."""
        self.now_ns = now_ns
        if self.state in CONNECTED:
            self.move("closing")
            self.distrust()

    def end(self, int64_t now_ns):
        """Note that no further connection is wanted; the host closes this one."""
        self.now_ns = now_ns
        self.is_ended = True

    def closed(self, int64_t now_ns, int code=ABNORMAL, str reason=""):
        """Note that the connection is gone, or could not be made, and decide what next.

        Every book turns STALE, now. *code* is the venue's, or ABNORMAL or UNTRUSTED;
        wait_ns() says when to try again, *failed* why never.
        """
        self.now_ns = now_ns
        if self.state in (State.CLOSED, State.FAILED):
            return
        was_open = self.state != State.CONNECTING
        useful = self.is_useful()
        logged_in = self.login is None or self.login.is_accepted
        if was_open:
            self.counters.add(Count.DISCONNECTS, 1)
        self.move("closed")
        self.disconnected(now_ns)
        if self.login is not None:
            self.login.end()
        self.outbox.clear()
        self.abandon_requests()
        if was_open and self.key is not None:
            self.messages.append(Disconnected())
        self.tell("closed", {"code": code, "reason": reason})
        if self.is_ended:
            return
        if useful:
            self.reconnect.reset()
        action = self.verdict or action_for(code, reason, logged_in)
        if action is CloseAction.RESUBSCRIBE_ONCE:
            self.drop_named(list(self.routes), NAMES.findall(reason), reason)
            if not self.has_dropped:
                # With the same channels the venue would say the same.
                action = CloseAction.STOP
        delay_ns = self.reconnect.next_ns(action)
        if delay_ns is None:
            told = was_open and self.verdict is None
            self.failed = f"closed with {code} {reason}".strip() if told else reason
            self.move("failed")
            self.tell("failed", {"reason": self.failed})
            return
        self.retry_ns = now_ns + delay_ns
        self.tell("reconnect", {
            "attempt": self.reconnect.attempt, "in_ms": delay_ns // 1_000_000,
        })

    def is_useful(self):
        """Tell whether the attempts may start over: not for a venue that flaps."""
        if self.state == State.CONNECTING or (self.login and not self.login.is_accepted):
            return False
        if self.routes and not self.was_subscribed:
            return False
        return (
            self.heartbeat_ns > self.opened_ns + SECOND_NS
            or self.now_ns - self.opened_ns >= USEFUL_NS
        )

    def move(self, str event not None):
        """Go where *event* leads; raises ValueError where it cannot happen."""
        old = State(self.state)
        try:
            new = TRANSITIONS[old][event]
        except KeyError:
            raise ValueError(f"a session that is {old.name} cannot be {event}") from None
        self.state = new
        self.tell("state", {"from": old.name.lower(), "to": new.name.lower()})

    def tell(self, str kind, dict detail):
        """Note what happened to the connection, and to which."""
        self.note(kind, "", {"connection": self.name, **detail} if self.name else detail)

    # ── time ──────────────────────────────────────────────────────────────────────────

    def tick(self, int64_t now_ns) -> int:
        """Let time pass; call about ten times a second while open. Returns the Actions."""
        self.now_ns = now_ns
        self.actions = Action.NOTHING
        if self.state not in CONNECTED:
            return self.actions
        if now_ns > self.in_time_until_ns:
            self.fall_behind()
        self.in_time_until_ns = now_ns + self.stall_after_ns
        self.count_missed()
        if now_ns - self.heartbeat_ns >= HEARTBEAT_TIMEOUT_NS:
            return self.give_up(f"no heartbeat for {HEARTBEAT_TIMEOUT_S} s")
        if self.pinged_ns and now_ns - self.pinged_ns >= PONG_TIMEOUT_NS:
            if self.heard_ns <= self.pinged_ns or self.is_late:
                return self.give_up("no pong in 10 s")
            self.pinged_ns = 0          # it has other things to say
        if self.login is not None and self.login.is_overdue(now_ns):
            return self.give_up(f"no answer to authenticate in {ANSWER_TIMEOUT_S} s")
        if self.patient_until_ns and now_ns >= self.patient_until_ns:
            return self.give_up(self.login_reason)
        if self.answers_overdue():
            return self.actions
        if now_ns - self.heard_ns >= SILENCE_NS or self.is_unproven():
            self.ping()
        self.look_after(now_ns, self.resync_interval_ns)
        if self.actions & Action.CLOSE:
            return self.actions
        return self.collect(now_ns)

    def count_missed(self):
        """Count the heartbeats that should have come."""
        late_ns = self.now_ns - self.heartbeat_ns - LATE_HEARTBEAT_NS
        if late_ns >= (self.missed + 1) * HEARTBEAT_NS:
            self.missed += 1
            self.counters.add(Count.MISSED_HEARTBEATS, 1)

    def answers_overdue(self):
        """Time out what the venue did not answer; tell whether that ends the connection."""
        overdue = [
            (request_id, request)
            for request_id, request in self.requests.items()
            if self.now_ns - request.sent_ns >= ANSWER_TIMEOUT_NS
        ]
        for request_id, request in overdue:
            if request.channels is not None:
                self.give_up(f"no answer to {request.action} in {ANSWER_TIMEOUT_S} s")
                return True
            del self.requests[request_id]
            if len(self.late) < MOST_LATE:
                self.late[request_id] = request
            self.answer(request_id, request.action, None)
        return False

    cdef int on_heartbeat(self) except -1:
        self.counters.add(Count.HEARTBEATS, 1)
        self.heartbeat_ns = self.now_ns
        self.missed = 0
        if self.other_throttle.take(self.now_ns):
            self.send(messages.Pong(messages.PongData(self.wall_ms())))
        if self.now_ns - self.last_ping_ns >= SILENCE_NS:
            self.ping()
        return 0

    def ping(self):
        """Ask for a pong: is the venue there, how far, and has all it sent been read?"""
        if self.pinged_ns and not self.is_unproven():
            return
        if not self.other_throttle.take(self.now_ns):
            return
        self.pinged_ns = self.now_ns
        self.last_ping_ns = self.now_ns
        self.pinged_stall = self.stalled
        self.ping_payload = self.now_ns.to_bytes(8, "big")
        self.counters.add(Count.PINGS, 1)
        self.actions |= Action.PING

    def pong(self, bytes payload not None, int64_t now_ns):
        """Take a pong control frame."""
        self.heard(now_ns)
        if not self.pinged_ns or payload != self.ping_payload:
            return
        self.round_trip_ns = now_ns - self.pinged_ns
        self.counters.record(ROUND_TRIP, self.round_trip_ns)
        self.proven_ns = self.pinged_ns
        self.pinged_ns = 0
        if self.is_late and self.pinged_stall == self.stalled:
            self.catch_up()

    def prove(self, int64_t now_ns):
        """Ask for a pong: once *proven_ns* is later, all that was sent before is read.

        To be called again until it is: there may be a ping under way already. The host is
        to call collect() next, and to do as it says.
        """
        self.now_ns = now_ns
        if self.state in CONNECTED:
            self.ping()

    def is_unproven(self):
        """Tell whether we are late, and have sent no ping since."""
        return self.is_late and self.pinged_stall != self.stalled

    def pinged(self, int64_t now_ns):
        """Take a ping control frame; its pong is a message to the venue's limits."""
        self.heard(now_ns)
        self.other_throttle.take(now_ns)

    def heard(self, int64_t now_ns):
        """Note that a control frame came: the venue is there."""
        self.now_ns = now_ns
        self.heard_ns = now_ns

    def wall_ms(self):
        """Return our clock in milliseconds since the epoch."""
        return (self.now_ns + self.utc_offset_ns) // 1_000_000

    # ── messages that are not market data ─────────────────────────────────────────────

    cdef int on_message(self, object message) except -1:
        kind = type(message)
        if kind is messages.SubscriptionResponse:
            self.answered(message)
        elif kind is messages.Error:
            self.refused(message)
        elif kind is messages.AuthResponse:
            self.authenticated(message)
        elif kind in RESPONSES:
            self.responded(message)
        elif kind in PRIVATE:
            self.deliver(message)
        else:
            self.counters.add(Count.UNROUTED, 1)
        return 0

    def deliver(self, message):
        """Keep a message of a private channel for the host."""
        cdef Route route = self.routes.get(message.channel)
        if route is None or route.kind != Kind.PRIVATE:
            self.counters.add(Count.UNROUTED, 1)
        elif len(self.messages) >= MOST_MESSAGES:
            self.give_up("nobody takes the messages of the private channels")
        else:
            self.messages.append(message)
            self.actions |= Action.DELIVER

    def authenticated(self, message):
        """Take an auth_response, or an error in its place."""
        if self.login is None or not self.login.is_about(message):
            self.counters.add(Count.UNROUTED, 1)
            return
        outcome = self.login.judge(message, self.now_ns, self.wall_ms())
        if outcome is Outcome.ACCEPTED:
            self.move("authenticated")
            self.actions |= Action.RESYNC
            return
        self.note("error", "", {
            "authenticate": outcome.name.lower(), "message": self.login.reason,
        })
        if outcome is Outcome.AGAIN:
            self.actions |= Action.RESYNC
            return
        self.login_reason = f"authentication failed: {self.login.reason}"
        if outcome is Outcome.REFUSED:
            self.verdict = CloseAction.STOP
            self.give_up(self.login_reason)
        else:
            # The close that follows says what to do.
            self.patient_until_ns = self.now_ns + CLOSE_PATIENCE_NS

    def answered(self, message):
        """Take the answer to a subscribe or unsubscribe."""
        request = self.requests.get(message.id)
        if request is None or request.channels is None:
            self.counters.add(Count.UNROUTED, 1)
            return
        del self.requests[message.id]
        if message.data.status != "success":
            self.note("rejected", "", {
                "channels": request.channels, "status": message.data.status,
            })
            return
        if request.action == "subscribe":
            self.was_subscribed = True
            for channel in request.channels:
                if channel in self.routes:
                    self.confirm(self.routes[channel], request.sent_ns)
        self.settle_state()

    def confirm(self, Route route not None, int64_t asked_ns):
        """Note that the venue serves a channel, and what it did not serve before."""
        if route.kind == Kind.PRIVATE:
            self.messages.append(Subscribed(route.channel, asked_ns))
            self.actions |= Action.DELIVER
        if route.kind == Kind.TRADE and route.epoch > 1 and not route.confirmed:
            # Trades have no numbers: how many there were in between, nobody can say.
            self.counters.add(Count.UNKNOWN_LOSSES, 1)
            self.note("loss", route.symbol, {"channel": route.channel, "trades": "unknown"})
        route.confirmed = True

    def settle_state(self):
        """Be SUBSCRIBED exactly while some channel is confirmed."""
        subscribed = any(route.confirmed for route in self.routes.values())
        if subscribed and self.state in (State.OPEN, State.AUTHENTICATED):
            self.move("subscribed")
        elif not subscribed and self.state == State.SUBSCRIBED:
            self.move("holds nothing" if self.login is None else "holds nothing, authenticated")

    def responded(self, message):
        """Take the answer to a request of ask()."""
        request = self.requests.get(message.id)
        if request is not None and request.channels is not None:
            request = None
        elif request is not None:
            del self.requests[message.id]
        else:
            request = self.late.pop(message.id, None)
        if request is None:
            self.counters.add(Count.UNROUTED, 1)
            return
        self.answer(message.id, request.action, message)

    def refused(self, message):
        """Take an error frame: wait, drop the channels it names, or give the connection up."""
        data = message.data
        self.counters.add(Count.ERRORS, 1)
        if self.login is not None and self.login.is_about(message):
            self.authenticated(message)
            return
        self.note("error", "", {
            "code": data.code, "message": data.message, "request_id": data.request_id,
        })
        request_id = data.request_id or message.id
        request = self.requests.pop(request_id, None) or self.late.pop(request_id, None)
        action = data.request_action if request is None else request.action
        if data.code == ErrorCode.RATE_LIMIT_EXCEEDED:
            until_ns = self.now_ns + retry_after_ns(data.retry_after)
            self.throttle_for(action).hold(until_ns)
        if request is None:
            return
        if request.channels is None:
            self.answer(request_id, request.action, message)
        elif data.code == ErrorCode.RATE_LIMIT_EXCEEDED:
            if request.action == "subscribe":
                self.ask_again(request.channels)
            else:
                self.unsubscribe_again(request.channels)
        elif request.action == "subscribe":
            self.subscribe_refused(data, request.channels)

    def subscribe_refused(self, data, channels):
        """Drop the channels that the venue names, and ask for the rest again."""
        at_fault = NAMES.findall(data.message)
        if isinstance(data.channels, list):
            at_fault += data.channels
        if data.code != ErrorCode.INVALID_PARAMETER or not self.drop_named(
            channels, at_fault, data.message
        ):
            self.give_up(f"subscription refused: {data.code}: {data.message}")
            return
        self.settle_state()
        self.ask_again(channels)

    def drop_named(self, channels, names, message):
        """Drop those of *channels* that are among *names*; tell whether there are any."""
        named = [channel for channel in channels if channel in set(names)]
        for channel in named:
            route = self.routes.get(channel)
            if route is None:
                continue
            self.has_dropped = True
            self.drop(route)
            self.note("rejected", route.symbol, {"channels": [channel], "message": message})
        return bool(named)

    # ── what is asked for ─────────────────────────────────────────────────────────────

    def add(self, str channel not None, int instrument, uint32_t epoch=0):
        """Hold a channel: its messages are routed, and it is subscribed to when open.

        Raises ValueError for a name outside the grammar. Adding a held one does nothing.
        Its epochs follow *epoch*: the last one of the same channel, if it was held before.
        """
        if channel in self.routes:
            return
        Tracker.add(self, channel, instrument, epoch)
        if self.state in CONNECTED:
            self.to_subscribe.append(channel)

    def remove(self, str channel not None):
        """Give a channel up; its book is flagged STALE for good."""
        cdef Route route = self.routes.get(channel)
        cdef bint asked_for
        if route is None:
            return
        # A channel that waits to be asked for again is one that the venue may have.
        asked_for = route.confirmed or channel not in self.to_subscribe
        self.drop(route)
        if asked_for and self.state in CONNECTED and channel not in self.to_unsubscribe:
            self.to_unsubscribe.append(channel)
        self.settle_state()

    def drop(self, Route route not None):
        """Forget a channel; its book is flagged STALE for good."""
        Tracker.drop(self, route)
        if route.channel in self.to_subscribe:
            self.to_subscribe.remove(route.channel)

    def ask_again(self, channels):
        """Have those of *channels* that are still ours subscribed in the next collect()."""
        self.again(channels)
        self.to_subscribe += [
            channel for channel in channels
            if channel in self.routes and channel not in self.to_subscribe
        ]
        self.actions |= Action.RESYNC

    def unsubscribe_again(self, channels):
        """Have those of *channels* that were given up unsubscribed in the next collect()."""
        self.to_unsubscribe += [
            channel for channel in channels
            if channel not in self.routes and channel not in self.to_unsubscribe
        ]
        self.actions |= Action.RESYNC

    def collect(self, int64_t now_ns) -> int:
        """Put what is to be asked for into the outbox, grouped; return the Actions.

        What the limiter holds back stays wanted: tick() tries again. Before we are
        authenticated there is but one thing to ask for.
        """
        cdef TrackedBook book
        self.now_ns = now_ns
        self.actions &= ~Action.RESYNC
        if not self.answers and not self.messages:
            self.actions &= ~Action.DELIVER
        if self.outbox:
            self.actions |= Action.SEND
        if self.login is not None and not self.login.is_accepted:
            request = self.login.request(now_ns, self.wall_ms())
            if request is not None:
                self.send(request)
            return self.actions
        if self.to_unsubscribe and self.subscribe_throttle.take(now_ns):
            self.request("unsubscribe", self.to_unsubscribe)
            self.to_unsubscribe = []
        wanted = [book for book in self.books() if book.wanted]
        channels = self.to_subscribe + [
            book.channel for book in wanted if book.channel not in self.to_subscribe
        ]
        again = [book.channel for book in wanted if book.rung == 1]
        if not channels or not self.subscribe_throttle.take(now_ns, 2 if again else 1):
            return self.actions
        if again:
            self.request("unsubscribe", again)
        self.request("subscribe", channels)
        self.counters.add(Count.RESYNCS, len(wanted))
        self.asked_for(channels, now_ns)
        self.to_subscribe = []
        return self.actions

    def request(self, str action, channels):
        """Send a subscribe or unsubscribe and remember it."""
        body = messages.Channels(list(channels))
        kind = messages.Subscribe if action == "subscribe" else messages.Unsubscribe
        request_id = self.new_id(action.removesuffix("scribe"))
        self.requests[request_id] = Request(action, list(channels), self.now_ns)
        self.send(kind(body, request_id))

    def ask(self, message, int64_t now_ns, int units=1, bint urgent=False) -> str:
        """Send a request of protocol.messages and return its id; see take_answers().

        An id is given to a message that has none. Order operations count *units*;
        *urgent* ones may use what is reserved. Raises NotConnected before the connection
        is open and authenticated, and Throttled, with the time to wait, when the venue's
        limit has no room; ValueError for an order without a key, and for an id that is
        under way. Nothing is kept to be sent later.
        """
        if self.state not in CONNECTED or (self.login and not self.login.is_accepted):
            raise NotConnected(self.name or "a session", State(self.state).name.lower())
        self.now_ns = now_ns
        action = message.__struct_config__.tag
        if action in ORDER_ACTIONS and self.key is None:
            raise ValueError(f"{action} on a session without a key")
        throttle = self.throttle_for(action)
        wait_ns = throttle.wait_ns(now_ns, units, urgent)
        if wait_ns:
            raise Throttled(action, wait_ns)
        if message.id is None:
            message.id = self.new_id(action.partition("_")[0])
        if message.id in self.requests:
            raise ValueError(f"a request {message.id!r} is under way")
        throttle.take(now_ns, units, urgent)
        self.requests[message.id] = Request(action, None, now_ns)
        self.send(message)
        return message.id

    def awaits(self, str request_id not None) -> bool:
        """Tell whether an answer to a request of ask() is to come, or to be taken."""
        if request_id in self.requests:
            return True
        return any([answer.id == request_id for answer in self.answers])

    def refresh(self, str channel not None, int64_t now_ns) -> bool:
        """Have the venue tell again what a private channel has; return whether it is asked.

        It is not where the channel is not confirmed, or the limiter has no room.
        """
        cdef Route route = self.routes.get(channel)
        if route is None or not route.confirmed or self.state != State.SUBSCRIBED:
            return False
        if not self.subscribe_throttle.take(now_ns, 2):
            return False
        self.now_ns = now_ns
        self.request("unsubscribe", [channel])
        self.request("subscribe", [channel])
        return True

    def throttle_for(self, action):
        """Return the limiter of an action's class."""
        if action in ("subscribe", "unsubscribe"):
            return self.subscribe_throttle
        if self.key is not None and action in ORDER_ACTIONS:
            return self.key.orders
        if self.key is not None and action == "authenticate":
            return self.key.authentications
        return self.other_throttle

    def abandon_requests(self):
        """Answer, of what was asked, all that is not known now."""
        requests, self.requests = self.requests, {}
        self.late.clear()
        for request_id, request in requests.items():
            if request.channels is None:
                self.answer(request_id, request.action, None)

    def answer(self, request_id, action, message):
        """Keep an answer for the host."""
        self.answers.append(Answer(request_id, action, message))
        self.actions |= Action.DELIVER

    def new_id(self, str what):
        """Make an id that no other request of this session has."""
        self.next_id += 1
        return f"{what}-{self.next_id}"

    def send(self, message):
        """Put a message in the outbox."""
        self.outbox.append(self.codec.encode(message))
        self.actions |= Action.SEND

    # ── what the host takes ───────────────────────────────────────────────────────────

    def take_outbox(self) -> list:
        """Return the messages to send, in order, and forget them."""
        taken = self.outbox
        self.outbox = []
        return taken

    def take_messages(self) -> list:
        """Return the messages of private channels since the last call, in order."""
        taken = self.messages
        self.messages = []
        return taken

    def take_answers(self) -> list:
        """Return the Answers since the last call, in order."""
        taken = self.answers
        self.answers = []
        return taken
