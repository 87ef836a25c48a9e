"""Venue, handler and consumer as three processes, and what the consumer saw."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from feedhandler.consumer import MarketData, Stream, attach
from feedhandler.counters import Counters, CountersReader, Histogram
from feedhandler.errors import FeedError, RingAbsent
from feedhandler.live_table import Display, Row, display
from feedhandler.records import flag_names

__all__ = ["demo"]

SYMBOLS = ("AAPL", "MSFT", "BTC-USD", "ETH-USD")
START_S = 10.0
STOP_S = 5.0
WAIT_S = 0.05
# One stream can be waited for; the other must not wait for long meanwhile.
TURN_S = 0.0002
LATENCY = "frame_to_consumer_ns"


class Summary(NamedTuple):
    """What a run of the demo came to."""

    seconds: float
    quotes: int
    trades: int
    lost: int
    counters: dict[str, int]
    to_ring: Histogram
    to_consumer: Histogram

    def lines(self) -> list[str]:
        """Put it into words."""
        return [
            f"ran          {self.seconds:.1f} s",
            f"messages     {self.counters['messages']}",
            f"quotes       {self.counters['quotes']} published, {self.quotes} read",
            f"trades       {self.counters['trades']} published, {self.trades} read",
            f"gaps         {self.counters['gaps']}",
            f"lost         {self.lost}",
            f"frame to ring      {_percentiles(self.to_ring)}",
            f"frame to consumer  {_percentiles(self.to_consumer)}",
        ]


def demo(seconds: float | None) -> int:
    """Run for *seconds* (None: until interrupted) and print a summary; exit code."""
    name = f"demo-{os.getpid()}"
    interrupted = False
    with _child("venue", "--port", "0") as venue:
        url = _url_of(venue)
        channels = [
            f"--channel={c}" for c in ("orderbook", "trades", "ticker", "candles")
        ]
        symbols = [f"--symbol={symbol}" for symbol in SYMBOLS]
        run = ("run", "--url", url, "--shm", name, *symbols, *channels)
        with _child(*run) as handler, _attach_soon(name, handler) as market:
            watcher = Watcher(market)
            try:
                watcher.run(seconds, (venue, handler))
            except KeyboardInterrupt:
                interrupted = True
            _end(handler)
            summary = watcher.summary()
    print("\n".join(summary.lines()), flush=True)
    return 130 if interrupted else 0


class Watcher:
    """The consumer: reads both rings and keeps count of what it sees, and how late."""

    def __init__(self, market: MarketData) -> None:
        self._market = market
        self._quotes = market.quotes(start="oldest")
        self._trades = market.trades(start="oldest")
        page = bytearray(Counters.size_for(0, 1))
        self._latencies = Counters(page, (), (LATENCY,))
        self._reader = CountersReader(page)
        self._seen = {"quotes": 0, "trades": 0}
        self._begun = time.monotonic()
        market.counters()  # attached now, they can still be read when the handler ended

    def run(
        self, seconds: float | None, children: tuple[subprocess.Popen[str], ...]
    ) -> None:
        """Read until time is up; FeedError when a child ends before that."""
        deadline = None if seconds is None else self._begun + seconds
        with display() as screen:
            while deadline is None or time.monotonic() < deadline:
                if not self._read(self._quotes, "quotes"):
                    self._quotes.wait(TURN_S)
                self._read(self._trades, "trades")
                if screen.is_due():
                    self._show(screen)
                    _check(children)

    def _read(self, stream: Stream, kind: str) -> int:
        records = stream.poll()
        now_ns = time.monotonic_ns() + self._market.utc_offset_ns
        for recv_ns in records["recv_ns"].tolist():
            self._latencies.observe(LATENCY, now_ns - recv_ns)
        self._seen[kind] += len(records)
        return len(records)

    def _show(self, screen: Display) -> None:
        rows = []
        for symbol in self._market.symbols():
            top = self._market.top(symbol)
            ticker = self._market.ticker(symbol)
            rows.append(Row(top, ticker, "|".join(flag_names(top.flags))))
        screen.show(rows, self._seen["quotes"], self._seen["trades"])

    def summary(self) -> Summary:
        """Read what is left, and add up."""
        while self._read(self._quotes, "quotes") or self._read(self._trades, "trades"):
            pass
        return Summary(
            seconds=time.monotonic() - self._begun,
            quotes=self._seen["quotes"],
            trades=self._seen["trades"],
            lost=self._quotes.lost + self._trades.lost,
            counters=self._market.counters(),
            to_ring=self._market.histogram("frame_to_ring_ns"),
            to_consumer=self._reader.histogram(LATENCY),
        )


def _percentiles(histogram: Histogram) -> str:
    if not histogram.count:
        return "no samples"
    p50, p99 = (histogram.percentile(p) / 1000 for p in (50, 99))
    return f"p50 {p50:.1f} us  p99 {p99:.1f} us  ({histogram.count} samples)"


@contextlib.contextmanager
def _child(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Run ``feedhandler *arguments*`` beside us, for as long as the block runs."""
    child = subprocess.Popen(
        [sys.executable, "-m", "feedhandler", "--log-level", "error", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        # Ctrl-C is for us: we end the children in order.
        start_new_session=True,
    )
    try:
        yield child
    finally:
        _end(child)


def _end(child: "subprocess.Popen[str]") -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _check(children: "tuple[subprocess.Popen[str], ...]") -> None:
    for child in children:
        if child.poll() is not None:
            assert isinstance(child.args, list)
            raise FeedError(f"the {child.args[5]} ended with {child.returncode}")


def _url_of(venue: "subprocess.Popen[str]") -> str:
    assert venue.stdout is not None
    line = venue.stdout.readline()
    if not line:
        venue.wait()
        _check((venue,))
    return line.split()[-1]


def _attach_soon(name: str, handler: "subprocess.Popen[str]") -> MarketData:
    deadline = time.monotonic() + START_S
    while True:
        try:
            return attach(name)
        except RingAbsent:
            if time.monotonic() > deadline:
                raise
            _check((handler,))
            time.sleep(WAIT_S)
