"""What a test may ask the venue to do wrong. No message on the wire can reach it."""

from collections import Counter, defaultdict, deque
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import msgspec

from feedhandler.protocol.messages import Orderbook
from feedhandler.venue.config import FaultConfig
from feedhandler.venue.market import Push

__all__ = ["AnswerFault", "FaultPlan"]

UPDATE = b'{"type":"orderbook_update"'
NS_PER_S = 1_000_000_000

AnswerKind = Literal["drop", "delay", "error", "cut"]
SnapshotKind = Literal["stale", "crossed"]
ACTIONS = ("submit_order", "cancel_order", "modify_order", "batch_orders")

decode_book = msgspec.json.Decoder(Orderbook).decode
encode = msgspec.json.Encoder().encode


class AnswerFault(NamedTuple):
    """What becomes of one order action, which is *processed* or not.

    Its answer is lost, late, an internal_error, or the end of the connection.
    """

    kind: AnswerKind
    processed: bool
    delay_ns: int = 0


class FaultPlan:
    """Faults to come; each is spent once, but for those that are switched on and off.

    The venue asks filter() for every batch of messages, after their sequences are
    given, opening() for what a subscriber begins with, answer() for every order action,
    and a gateway asks heartbeats_stopped.
    """

    def __init__(self) -> None:
        self.heartbeats_stopped = False
        self._skips: Counter[str] = Counter()
        self._repeats: Counter[str] = Counter()
        self._withheld: Counter[str] = Counter()
        self._kept: defaultdict[str, list[Push]] = defaultdict(list)
        self._frozen: set[str] = set()
        self._muted: set[str] = set()
        self._snapshots: defaultdict[str, deque[SnapshotKind]] = defaultdict(deque)
        self._answers: defaultdict[str, deque[AnswerFault]] = defaultdict(deque)
        self._cut: Callable[[int | None, str], None] | None = None
        self._send: Callable[[list[Push]], None] | None = None
        self._restart: Callable[[], None] | None = None

    # ── market data ───────────────────────────────────────────────────────────────

    def skip(self, channel: str, updates: int = 1) -> None:
        """Lose the next book updates of a channel; their sequences are used up."""
        self._skips[channel] += updates

    def repeat(self, channel: str, updates: int = 1) -> None:
        """Send each of the next book updates of a channel twice."""
        self._repeats[channel] += updates

    def withhold(self, channel: str, updates: int = 1) -> None:
        """Keep the next book updates of a channel back, until release()."""
        self._withheld[channel] += updates

    def release(self, channel: str) -> None:
        """Send what was kept back, late and in its order."""
        self._withheld.pop(channel, None)
        kept = self._kept.pop(channel, [])
        if kept and self._send is not None:
            self._send(kept)

    def freeze(self, channel: str) -> None:
        """Send nothing on a channel until thaw(); snapshots are still answered."""
        self._frozen.add(channel)

    def mute(self, channel: str) -> None:
        """Confirm subscriptions of a channel, and send nothing, not even snapshots."""
        self._frozen.add(channel)
        self._muted.add(channel)

    def thaw(self, channel: str) -> None:
        """Send again on a frozen or mute channel; what came meanwhile is lost."""
        self._frozen.discard(channel)
        self._muted.discard(channel)

    def spoil_snapshot(self, channel: str, kind: SnapshotKind, count: int = 1) -> None:
        """Make the next snapshots of a book stale by ten updates, or crossed."""
        if not channel.startswith("orderbook:") or kind not in get_args(SnapshotKind):
            raise ValueError(f"no snapshot of {channel!r} can be {kind!r}")
        self._snapshots[channel].extend([kind] * count)

    # ── answers ───────────────────────────────────────────────────────────────────

    def spoil_answer(
        self,
        action: str,
        kind: AnswerKind,
        *,
        processed: bool,
        delay_s: float = 0.0,
        count: int = 1,
    ) -> None:
        """Lose or spoil the answers to the next order actions of a name."""
        if action not in ACTIONS or kind not in get_args(AnswerKind):
            raise ValueError(f"no answer to {action!r} can be {kind!r}")
        fault = AnswerFault(kind, processed, round(delay_s * NS_PER_S))
        self._answers[action].extend([fault] * count)

    def answer(self, action: str) -> AnswerFault | None:
        """Use up the fault of the next answer to an action, if there is one."""
        waiting = self._answers.get(action)
        return waiting.popleft() if waiting else None

    # ── connections ───────────────────────────────────────────────────────────────

    def close_all(self, code: int, reason: str = "") -> None:
        """Close every connection with a code."""
        if self._cut is not None:
            self._cut(code, reason)

    def abort_all(self) -> None:
        """Drop every connection with no close frame."""
        if self._cut is not None:
            self._cut(None, "")

    def restart(self) -> None:
        """Restart the venue on its port: 4004 to everybody, and nothing is kept."""
        if self._restart is not None:
            self._restart()

    def attach(
        self,
        cut: Callable[[int | None, str], None],
        send: Callable[[list[Push]], None],
        restart: Callable[[], None],
    ) -> None:
        """Tell the plan how to reach the venue, which does so when it starts."""
        self._cut, self._send, self._restart = cut, send, restart

    def run(self, fault: FaultConfig) -> None:
        """Do what a line of a configuration says, now."""
        kind, _, about = fault.kind.partition("_")
        if about == "answer":
            self.spoil_answer(
                fault.action,
                kind,  # type: ignore[arg-type]
                processed=fault.processed,
                delay_s=fault.delay_s,
                count=fault.count,
            )
        elif about == "snapshot":
            self.spoil_snapshot(fault.channel, kind, fault.count)  # type: ignore[arg-type]
        elif about == "heartbeats":
            self.heartbeats_stopped = kind == "stop"
        elif kind in ("skip", "repeat", "withhold"):
            getattr(self, kind)(fault.channel, fault.count)
        elif kind in ("release", "freeze", "mute", "thaw"):
            getattr(self, kind)(fault.channel)
        elif kind == "close":
            self.close_all(fault.code, fault.reason)
        elif kind == "abort":
            self.abort_all()
        else:
            self.restart()

    def clear(self) -> None:
        """Forget every fault to come: a venue that begins anew has none."""
        self.heartbeats_stopped = False
        for waiting in (
            self._skips, self._repeats, self._withheld, self._kept, self._frozen,
            self._muted, self._snapshots, self._answers,
        ):  # fmt: skip
            waiting.clear()

    # ── for the venue ─────────────────────────────────────────────────────────────

    @property
    def active(self) -> bool:
        """Whether filter() would change anything."""
        return bool(self._skips or self._repeats or self._frozen or self._withheld)

    def filter(self, pushes: list[Push]) -> list[Push]:
        """Return the messages to send instead of *pushes*."""
        sent: list[Push] = []
        for push in pushes:
            sent += [push] * self._copies(push)
        return sent

    def opening(self, channel: str, payloads: list[bytes]) -> list[bytes]:
        """Return what a subscriber begins with instead of *payloads*."""
        if channel.partition("/")[0] in self._muted:
            return []
        kinds = self._snapshots.get(channel)
        if not kinds:
            return payloads
        kind = kinds.popleft()
        return [spoil(payload, kind) for payload in payloads]

    def _copies(self, push: Push) -> int:
        # A private channel is fed by account, and known by its kind.
        if push.channel.partition("/")[0] in self._frozen:
            return 0
        if not push.payload.startswith(UPDATE):
            return 1
        if spend(self._withheld, push.channel):
            self._kept[push.channel].append(push)
            return 0
        if spend(self._skips, push.channel):
            return 0
        return 2 if spend(self._repeats, push.channel) else 1


def spend(faults: Counter[str], channel: str) -> bool:
    """Use one up, if there is one."""
    if channel not in faults:
        return False
    faults[channel] -= 1
    if faults[channel] <= 0:
        del faults[channel]
    return True


def spoil(payload: bytes, kind: SnapshotKind) -> bytes:
    """Return a snapshot that is of the past, or whose sides are exchanged."""
    snapshot = decode_book(payload)
    data = snapshot.data
    if kind == "stale":
        data.sequence = max(1, data.sequence - 10)
    else:
        data.bids, data.asks = data.asks, data.bids
    return encode(snapshot)
