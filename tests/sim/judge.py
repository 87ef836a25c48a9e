"""Says whether what the clients do is right: an invariant for every thing they do.

Sees all that goes and comes, and knows the venue's true books. It keeps its own account
of each connection, and shares no code with the product's session, book, sequence check
or limiter.
"""

from typing import Any

import msgspec

from feedhandler.session import Disconnected, Subscribed
from tests.sim.client_side import BEAT_NS, Host
from tests.sim.findings import Findings
from tests.sim.limits import Limits
from tests.sim.record import LIVE, STALE, Record, Stream, submits
from tests.sim.rules import STATES
from tests.sim.world import SECOND, World

__all__ = ["Judge"]

MOST_WISHES = 10
ANSWER_NS = 10 * SECOND
# From a tick to another: a second is too long, and the beat is not exact.
SLEPT_NS = SECOND + 2 * BEAT_NS
BEFORE_LOGIN = ("authenticate", "pong")
# Their answer is waited for, or the connection is given up.
AWAITED = ("authenticate", "subscribe", "unsubscribe")
PRIVATE = (
    "order_update", "user_trade", "account_update", "system_notification",
    "user_notification", "custom_alert",
)  # fmt: skip

decode = msgspec.json.decode


class Judge:
    """The account of all client connections of a life.

    *lies* are messages that are not true, though nothing in them shows that.
    """

    def __init__(self, world: World, findings: Findings, lies: set[bytes]) -> None:
        self.messages = 0
        self.close_codes: set[int] = set()
        self.transitions: set[tuple[str, str]] = set()
        self.records: dict[Host, Record] = {}
        self._world = world
        self._findings = findings
        self._lies = lies
        self._limits = Limits(findings)
        self._decoded: dict[bytes, Any] = {}
        self._orders: set[str] = set()
        self._woke_ns = 0

    def meet(self, host: Host, private: bool) -> None:
        """Begin to watch a connection."""
        self.records[host] = Record(private)

    def wanted(self, host: Host) -> list[str]:
        """Return what a connection is to hold: what is wanted, and was not refused."""
        refused = self.records[host].refused
        return [channel for channel in host.wanted if channel not in refused]

    def _fail(self, what: str, host: Host, why: str) -> None:
        self._findings.fail(what, host.name, why)

    # ── connections ───────────────────────────────────────────────────────────────

    def connecting(self, host: Host) -> None:
        """See a connection being made: when it may, and one at a time (I-20)."""
        record, now_ns = self.records[host], self._world.now_ns
        self._world.note(host.name, "connecting")
        if host.socket is not None:
            self._fail("I-20", host, "a second connection while there is one")
        if record.wish is None:
            self._fail("I-19", host, "connects, and must not any more")
            return
        least_ns, most_ns = record.wish
        if now_ns < least_ns:
            early_ms = (least_ns - now_ns) / 1e6
            self._fail("I-20", host, f"connects {early_ms:.3f} ms too early")
        most_ns = max(most_ns, self._woke_ns + 2 * BEAT_NS)
        if record.private:
            private = sum(other.private for other in self.records.values())
            most_ns = max(most_ns, self._limits.may_log_in_ns(private, now_ns))
        if now_ns > most_ns:
            late_ms = (now_ns - most_ns) / 1e6
            self._fail("I-20", host, f"connects {late_ms:.3f} ms too late")

    def opened(self, host: Host) -> None:
        """See that a connection is open."""
        record, now_ns = self.records[host], self._world.now_ns
        self._world.note(host.name, "open")
        record.begin(now_ns)
        record.attempts.opened(now_ns)

    def ends(self, host: Host) -> None:
        """Hear that there shall be no further connection (CN-07)."""
        self._world.note(host.name, "ends")
        self.records[host].finished = True
        self.records[host].wish = None

    def ended(self, host: Host, code: int) -> None:
        """See the end of a connection, and work out what may follow."""
        record, now_ns = self.records[host], self._world.now_ns
        self._world.note(host.name, "ended", code)
        self._owes_no_pong(host, record)
        if record.crowded:
            # The answer came before the close, which says what there is to do.
            code = 4003
        holds, stopped = bool(self.wanted(host)), record.stopped
        record.begin(0)
        record.ended_ns = now_ns
        if not record.finished:
            self.close_codes.add(code)
            record.wish = record.attempts.closed(now_ns, code, holds, stopped)

    def decided(self, host: Host) -> None:
        """See what follows the end: nothing stays LIVE, and the table holds (I-19)."""
        record = self.records[host]
        failed = host.session.failed
        if (failed is not None) != (record.wish is None) and not record.finished:
            self._fail("I-19", host, f"failed is {failed!r}, expected {record.wish}")
        if failed is not None:
            record.wish = None
        for channel, stream in record.streams.items():
            if stream.is_live or (not stream.quote[2] & STALE and any(stream.quote)):
                self._fail("I-03", host, f"{channel} is not STALE without a connection")

    def stalled(self, host: Host, slept_ns: int) -> None:
        """Hear that the client did not read: what comes now may be old (F-58)."""
        record = self.records[host]
        self._woke_ns = self._world.now_ns
        self._world.note(host.name, "awake", slept_ns)
        if record.open and slept_ns > SLEPT_NS:
            record.late = True
            record.pings.clear()

    # ── what the client sends ─────────────────────────────────────────────────────

    def sent(self, host: Host, payload: bytes) -> None:
        """See a message go: one that may go now (I-12), once (I-08), in time (I-14)."""
        record = self.records[host]
        self._world.note(host.name, "sends", payload)
        message = decode(payload)
        action, request_id = message["action"], message.get("id")
        logged_in = record.attempts.logged_in or not record.private
        if not logged_in and action not in BEFORE_LOGIN:
            self._fail("I-12", host, f"{action} before it is authenticated")
        if request_id is not None:
            if request_id in record.ids:
                self._fail("MF-12", host, f"{request_id} is sent twice")
            record.ids.add(request_id)
        if action in AWAITED:
            record.pending.add(request_id)
        if action == "authenticate":
            record.login_id = request_id
        elif action == "subscribe":
            record.subscribes.add(request_id)
            self._hear_wishes(host, record, message["data"]["channels"])
        elif action == "pong":
            record.owes_pong = False
        self._limits.count(message, host.link, host.name, self._world.now_ns)
        for client_id in submits(message):
            if client_id in self._orders:
                self._fail("I-08", host, f"order {client_id} is sent twice")
            self._orders.add(client_id)

    def _hear_wishes(self, host: Host, record: Record, channels: list[str]) -> None:
        """Count how often a snapshot is asked for in vain: no storms (F-46)."""
        for channel in channels:
            stream = record.streams.get(channel)
            if stream is not None and stream.is_book:
                stream.wishes += 1
                if stream.wishes == MOST_WISHES:
                    self._fail("F-46", host, f"{channel} is asked for again and again")

    def pinged(self, host: Host, payload: bytes) -> None:
        """See a ping control frame go, which is a message to the limits."""
        self._world.note(host.name, "pings", payload)
        self.records[host].pings.add(payload)
        self._limits.count({"action": "ping"}, host.link, host.name, self._world.now_ns)

    # ── what comes to the client ──────────────────────────────────────────────────

    def delivered(self, host: Host, payload: bytes) -> None:
        """See a message come, before the session does."""
        record, now_ns = self.records[host], self._world.now_ns
        self._world.note(host.name, "gets", payload)
        self.messages += 1
        self._owes_no_pong(host, record)
        message = self._read(payload)
        if message is None:
            for stream in record.streams.values():
                stream.lose()
            record.suspects = list(record.streams.values())
            return
        record.pending.discard(message.get("id"))
        kind = message.get("type")
        if kind == "orderbook_update" or kind == "orderbook":
            self._hear_book(host, record, message, payload not in self._lies)
        elif kind in PRIVATE:
            record.to_hand += message["channel"] in host.wanted
        elif kind == "heartbeat":
            record.attempts.heartbeat()
            record.beat_ns = now_ns
            record.owes_pong = self._limits.must_pong(host.link, now_ns)
        elif kind == "auth_response":
            self._hear_login(host, record, message)
        elif kind == "subscription_response":
            success = message["data"].get("status") == "success"
            if success and message.get("id") in record.subscribes:
                record.attempts.subscribed = True
        elif kind == "error":
            self._hear_error(host, record, message["data"])

    def _read(self, payload: bytes) -> Any:
        """Return what a message says, None if it is none."""
        if payload not in self._decoded:
            if len(self._decoded) > 64:
                self._decoded.clear()
            try:
                message = decode(payload)
            except (msgspec.DecodeError, UnicodeDecodeError):
                message = None
            self._decoded[payload] = message
        return self._decoded[payload]

    def _hear_book(
        self, host: Host, record: Record, message: dict[str, Any], true: bool
    ) -> None:
        channel, sequence = message["channel"], message["data"]["sequence"]
        stream = record.streams.get(channel)
        if stream is None:
            return
        record.suspects.append(stream)
        if message["type"] == "orderbook":
            assert host.link is not None
            stream.snapshot(sequence, true, host.link.served.truth.latest(channel))
        else:
            stream.update(sequence, true)

    def _hear_login(self, host: Host, record: Record, message: dict[str, Any]) -> None:
        """Take an auth_response as A-01 has it."""
        if record.login_id is None or message.get("id") not in (record.login_id, None):
            return
        record.login_id = None
        data = message.get("data") or {}
        said = {message.get("status"), data.get("status")} - {None}
        if said == {"success"}:
            record.attempts.logged_in = True
        elif data.get("code") == "invalid_credentials":
            record.stopped = True
        elif data.get("code") == "rate_limit_exceeded":
            record.crowded = True

    def _hear_error(self, host: Host, record: Record, data: dict[str, Any]) -> None:
        action = data.get("request_action") or ""
        if data["code"] == "rate_limit_exceeded":
            until_ns = self._world.now_ns + data["retry_after"] * SECOND
            self._limits.hold(action, host.link, until_ns)
        elif action == "subscribe" and data.get("channels"):
            record.attempts.named = True
            record.refused |= dict.fromkeys(data["channels"])

    def digested(self, host: Host) -> None:
        """See what a message left behind: what is not known is not LIVE (I-03)."""
        record = self.records[host]
        suspects, record.suspects = record.suspects, []
        for stream in record.streams.values() if record.late else suspects:
            if stream.is_live and (record.late or stream.is_unknown):
                channel = host.channels[stream.number]
                self._fail("I-03", host, f"{channel} is left LIVE")

    def ponged(self, host: Host, payload: bytes) -> None:
        """See a pong control frame come: all that was sent before it has come too."""
        record = self.records[host]
        self._world.note(host.name, "ponged", payload)
        self.messages += 1
        self._owes_no_pong(host, record)
        if payload in record.pings:
            record.late = False

    def _owes_no_pong(self, host: Host, record: Record) -> None:
        """Check that the last heartbeat was answered at once (HB-03)."""
        if record.owes_pong:
            record.owes_pong = False
            self._fail("HB-03", host, "a heartbeat was not answered")

    # ── what the client says ──────────────────────────────────────────────────────

    def quoted(self, host: Host, event: Any) -> None:
        """See a quote: true (I-01), sound (I-02), known (I-03) and new (I-04)."""
        record = self.records[host]
        channel = host.channels[event.instrument]
        stream = record.streams.get(channel)
        if stream is None or stream.number != event.instrument:
            if event.flags & LIVE:
                self._fail("I-03", host, f"{channel} is LIVE, and was given up")
            return
        (epoch, sequence, _), flags = stream.quote, event.flags
        stream.quote = event.epoch, event.sequence, flags
        if stream.quote < (epoch, sequence):
            new = stream.quote[:2]
            self._fail("I-04", host, f"{channel}: {new} after {epoch, sequence}")
        if not flags & LIVE:
            return
        stream.wishes = 0
        if flags & STALE or event.bid_price >= event.ask_price:
            self._fail("I-02", host, f"{channel} is LIVE with flags {flags:#x}")
        if record.late or not record.open:
            self._fail("I-03", host, f"{channel} is LIVE, and may be old")
        elif not stream.stands_at(event.sequence):
            if not stream.tainted:
                known = f"known until {stream.reached}, then {sorted(stream.ahead)[:5]}"
                self._fail(
                    "I-03", host, f"{channel} is LIVE at {event.sequence}, {known}"
                )
        else:
            self._compare(host, channel, stream, event)

    def _compare(self, host: Host, channel: str, stream: Stream, event: Any) -> None:
        """Compare a book with what the venue's was then (I-01).

        What was told wrongly may be put right by what comes after it.
        """
        book, link = host.session.routes[channel].book, host.link
        assert book is not None
        assert link is not None
        bids, asks = book.bids(), book.asks()
        top = (event.bid_price, event.bid_size), (event.ask_price, event.ask_size)
        if bids and asks and top != (bids[0], asks[0]):
            self._fail("I-01", host, f"{channel} quotes {top}, its book is another")
        if link.served.truth.was(channel, event.sequence, bids, asks):
            stream.tainted = False
        elif not stream.tainted:
            self._fail("I-01", host, f"{channel} is wrong at {event.sequence}")

    def traded(self, host: Host, event: Any) -> None:
        """See a trade: each is published once in a connection (I-07)."""
        channel = host.channels[event.instrument]
        stream = self.records[host].streams.get(channel)
        if stream is None or event.trade_id in stream.trades:
            self._fail("I-07", host, f"{channel} has {event.trade_id} once more")
        else:
            stream.trades.add(event.trade_id)

    def took(self, host: Host, events: list[Any], answers: list[Any]) -> None:
        """See what a session tells its host: states by the table, answers once."""
        record = self.records[host]
        for kind, _, detail in events:
            if kind == "state":
                step = detail["from"], detail["to"]
                self._world.note(host.name, "state", step)
                self.transitions.add(step)
                if step not in STATES or step[0] != record.state:
                    self._fail("LC-07", host, f"{record.state}, then {step}")
                record.state = step[1]
            elif kind == "fault":
                self._fail("I-23", host, repr(detail))
            else:
                self._world.note(host.name, kind, repr(detail))
        for answer in answers:
            self._world.note(host.name, "answer", [answer.id, repr(answer.message)])
            self._answer(host, record, answer)

    def _answer(self, host: Host, record: Record, answer: Any) -> None:
        """Take the answer to a request: unknown only with a reason, and one only.

        One that comes late, on the same connection, is a second one.
        """
        asked_ns = record.asked_ns.pop(answer.id, None)
        timed_out_ns = record.timed_out_ns.pop(answer.id, None)
        if timed_out_ns is not None and record.ended_ns < timed_out_ns:
            if answer.message is None:
                self._fail("F-64", host, f"{answer.id} is unknown twice")
            return
        if asked_ns is None:
            self._fail("F-32", host, f"{answer.id} is answered, and was not asked")
            return
        record.answered.add(answer.id)
        waited_ns = self._world.now_ns - asked_ns
        if answer.message is None and waited_ns >= ANSWER_NS:
            record.timed_out_ns[answer.id] = self._world.now_ns
        has_reason = waited_ns >= ANSWER_NS or record.ended_ns >= asked_ns
        if answer.message is None and not has_reason:
            self._fail("MF-11", host, f"{answer.id} is unknown after {waited_ns} ns")

    def handed(self, host: Host, messages: list[Any]) -> None:
        """See messages of private channels handed on."""
        told = [m for m in messages if not isinstance(m, (Subscribed, Disconnected))]
        self.records[host].to_hand -= len(told)

    # ── what the embedder asks ────────────────────────────────────────────────────

    def wants(self, host: Host, channel: str) -> None:
        """Hear of a channel that is wanted from now on."""
        self._world.note(host.name, "wants", channel)
        is_book = channel.startswith("orderbook:")
        self.records[host].streams[channel] = Stream(len(host.channels), is_book)

    def forgoes(self, host: Host, channel: str) -> None:
        """See one that is wanted no more: it was flagged STALE."""
        self._world.note(host.name, "forgoes", channel)
        if self.records[host].streams.pop(channel).is_live:
            self._fail("I-03", host, f"{channel} is left LIVE, and was given up")

    def asked(self, host: Host, request_id: str) -> None:
        """Hear of a request."""
        record = self.records[host]
        if request_id in record.asked_ns or request_id in record.answered:
            self._fail("MF-12", host, f"{request_id} is used again")
        record.asked_ns[request_id] = self._world.now_ns
