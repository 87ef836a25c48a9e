"""The venue under attack: each is refused cleanly, and nobody else notices.

Attackers are processes of their own, with an address of their own (127.0.0.2). Beside
each attack a client that behaves is measured, from ping to pong and back.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from itertools import cycle, pairwise, product
from pathlib import Path

import msgspec
import pytest
from picows import WSMsgType

from feedhandler.protocol.channels import TRADING
from feedhandler.venue.config import (
    AccountConfig,
    LimitsConfig,
    TradersConfig,
    VenueConfig,
)
from feedhandler.venue.exchange import Exchange
from tests.clients import authenticated, connected, log_in, serve

ROOT = Path(__file__).parent.parent.parent
ATTACK_S = 120.0
APART_S = 0.002
SAMPLES = 100
MANY = 4000
# Below this a median says what else the machine does.
FLOOR_MS = 5.0
# A read of 256 KiB holds forty thousand pings, and is worked off in one go.
FLOOR_OF_PINGS_MS = 20.0

ACCOUNTS = [
    AccountConfig(
        id=f"acc-{name}",
        api_key=f"key-{name}",
        secret=f"secret of {name}",
        balances={"USD": 1_000_000},
    )
    for name in ("ann", "bob")
]
CONFIG = VenueConfig(port=0, accounts=ACCOUNTS)
QUIET = msgspec.structs.replace(CONFIG, traders=TradersConfig(enabled=False))


class Attack:
    """An attack that runs."""

    def __init__(self, venue, name, count):
        self.name = f"{count} {name}"
        self._command = ["-m", "tests.attackers", name, str(venue.port), str(count)]

    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert await self.line() == "begin"
        return self

    async def __aexit__(self, *_):
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def line(self):
        return (await self.process.stdout.readline()).decode().strip()

    async def end(self):
        async with asyncio.timeout(ATTACK_S):
            line = await self.line()
            await self.process.wait()
        return json.loads(line)


class Healthy:
    """Clients that behave, one of them on the books and trades of a live market."""

    @classmethod
    async def joined(cls, venue):
        self = cls()
        self.client = await connected(venue)
        # One client may not ping so often: they take turns.
        self._turns = cycle([self.client] + [await connected(venue) for _ in range(39)])
        self._count = 0
        channels = ["orderbook:AAPL:10", "orderbook:BTC-USD:10", "trades:AAPL"]
        await self.client.ask("subscribe", channels=channels)
        self.quiet = [await self.round_trip() for _ in range(SAMPLES)]
        return self

    async def round_trip(self):
        """Return the ms from ping to pong."""
        client = next(self._turns)
        client.pongs.clear()
        started = time.perf_counter_ns()
        client.transport.send_ping(b"")
        await client.until(lambda: client.pongs)
        taken_ns = time.perf_counter_ns() - started
        self._count += 1
        await asyncio.sleep(APART_S if self._count < MANY else 20 * APART_S)
        return taken_ns / 1e6

    async def until(self, over, what, floor_ms=FLOOR_MS):
        """Measure until something is over: it may not be much slower than before."""
        beside = [await self.round_trip()]
        while not over():
            beside.append(await self.round_trip())
        quiet, median = statistics.median(self.quiet), statistics.median(beside)
        print(
            f"{what}: ping to pong p50 {quiet:.2f} ms before, {median:.2f} ms beside, "
            f"p99 {percentile(beside, 99):.2f} ms of {len(beside)}"
        )
        assert median < max(2 * quiet, floor_ms)
        assert self.client.close is None
        assert missing(self.client, "orderbook:AAPL:10") == []

    async def unharmed_by(self, attack, floor_ms=FLOOR_MS):
        """Measure until an attack is over; return its result."""
        ending = asyncio.create_task(attack.end())
        await self.until(ending.done, attack.name, floor_ms)
        return await ending


def percentile(values, percent):
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def missing(client, channel):
    numbers = [message["data"]["sequence"] for message in client.on(channel)]
    return [after for before, after in pairwise(numbers) if after != before + 1]


def attacked(name, count, config=CONFIG, floor_ms=FLOOR_MS, **limits):
    """Run one attack beside a healthy client; return what the attacker says."""
    config = msgspec.structs.replace(config, limits=LimitsConfig(**limits))
    results = []

    async def scenario(venue):
        healthy = await Healthy.joined(venue)
        async with Attack(venue, name, count) as attack:
            results.append(await healthy.unharmed_by(attack, floor_ms))

    serve(scenario, config)
    return results[0]


# ── handshakes ────────────────────────────────────────────────────────────────────────


@pytest.mark.req("F-95", "SEC-14")
@pytest.mark.parametrize("count", [400, pytest.param(5000, marks=pytest.mark.stress)])
def test_an_address_that_connects_again_and_again_holds_a_hundred(count):
    result = attacked("handshakes", count)

    assert result == {"held": 100, "1013": count - 100}


@pytest.mark.req("F-95", "SEC-10")
@pytest.mark.parametrize("count", [100, pytest.param(600, marks=pytest.mark.stress)])
def test_who_does_not_finish_a_handshake_in_five_seconds_is_sent_away(count):
    result = attacked("slow_handshakes", count)

    assert result["shortest_s"] > 4.5
    assert result["longest_s"] < 8.0


@pytest.mark.req("SEC-10")
@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (b"GET /ws/trading HTTP/1.1\r\nX: " + b"x" * 20_000, b""),
        (b"GET /ws/trading HTTP/1.1\r\n" + b"X: x\r\n" * 200 + b"\r\n", b"HTTP/1.1 4"),
        (b"POST /ws/trading HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"HTTP/1.1 4"),
        (b"GET / HTTP/1.1\r\n\xff\xfe: \x00\r\n\r\n", b"HTTP/1.1 4"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"HTTP/1.1 4"),
    ],
    ids=["a long header", "many headers", "a post", "no text", "a TLS hello"],
)
def test_what_is_no_upgrade_is_refused_and_told_nothing(request_, told):
    async def scenario(venue):
        reader, writer = await asyncio.open_connection("127.0.0.1", venue.port)
        writer.write(request_)
        answer = await asyncio.wait_for(reader.read(), 8)
        writer.close()

        assert answer.startswith(told)
        assert len(answer) < 500
        assert b"Traceback" not in answer
        assert b"Error(" not in answer

    serve(scenario, QUIET)


# ── messages ──────────────────────────────────────────────────────────────────────────


@pytest.mark.req("LM-06", "CC-07")
@pytest.mark.parametrize(
    "count", [5000, pytest.param(50_000, marks=pytest.mark.stress)]
)
def test_a_flood_of_pings_is_answered_until_it_is_cut(count):
    """As many pongs as messages are allowed, and as many again before the close."""
    result = attacked("pings", count, floor_ms=FLOOR_OF_PINGS_MS)
    most = 400 * (result["4001"] + result.get("1000", 0))

    assert result["4001"] >= 1
    assert most - 400 <= result["opcode 10"] <= most


@pytest.mark.req("F-96", "LM-04")
def test_a_flood_of_subscribes_is_answered_fifty_times():
    result = attacked("subscribes", 5000)
    most = 50 * (result["4001"] + result.get("1000", 0))

    assert result["4001"] >= 1
    assert most - 50 <= result["subscription_response"] <= most


@pytest.mark.req("SEC-11", "A-30")
@pytest.mark.parametrize("name", ["fragments", "empty_fragments"])
@pytest.mark.parametrize(
    "count", [5000, pytest.param(70_000, marks=pytest.mark.stress)]
)
def test_a_message_of_endless_fragments_is_ended(name, count):
    result = attacked(name, count)

    assert result["1008"] >= 1


@pytest.mark.req("F-96", "A-29")
@pytest.mark.parametrize(
    "names",
    [["t:A"] * 10_000, ["".join(t) for t in product("0123456789abcdef", repeat=3)]],
)
def test_thousands_of_bad_channels_are_refused_in_few_words(names):
    async def scenario(venue):
        client, other = await connected(venue), await connected(venue)
        client.transport.send(WSMsgType.TEXT, compact("subscribe", channels=names))
        await client.until(lambda: client.told)
        told = await other.ask("subscribe", channels=["trades:AAPL"])

        assert client.told[0]["data"]["code"] == "invalid_parameter"
        assert len(client.told[0]["data"]["channels"]) <= 50
        assert len(client.messages[0]) < 5000
        assert told["data"]["status"] == "success"

    serve(scenario, QUIET)


@pytest.mark.req("F-96", "SEC-11")
def test_ten_thousand_channels_are_too_big_a_message():
    async def scenario(venue):
        client = await connected(venue)
        client.subscribe(*["trades:AAPL"] * 10_000)

        assert (await client.gone())[0] == 1009

    serve(scenario, QUIET)


def compact(action, **data):
    text = json.dumps({"action": action, "data": data}, separators=(",", ":"))
    return text.encode()


# ── orders ────────────────────────────────────────────────────────────────────────────


@pytest.mark.req("F-99")
@pytest.mark.parametrize("operations", [[{}] * 10_000, [], [{}] * 51])
def test_a_batch_of_too_many_does_nothing(operations):
    async def scenario(venue):
        client = await authenticated(venue, TRADING)
        client.transport.send(
            WSMsgType.TEXT, compact("batch_orders", operations=operations)
        )
        await client.until(lambda: len(client.told) == 2)

        assert client.told[1]["data"]["code"] == "invalid_parameter"
        assert venue.market.desk.open_orders("acc-ann") == []

    serve(scenario, QUIET)


@pytest.mark.req("F-99")
def test_a_batch_in_a_batch_is_no_operation():
    async def scenario(venue):
        client = await authenticated(venue, TRADING)
        inner = {"operation": "submit", **ORDER}
        outer = {"operation": "batch_orders", "operations": [inner] * 50}
        answer = await client.ask("batch_orders", operations=[outer, inner])

        assert answer["data"]["status"] == "partial"
        first, second = answer["data"]["results"]
        assert (first["status"], first["code"]) == ("error", "invalid_parameter")
        assert second["status"] == "accepted"
        assert len(venue.market.desk.open_orders("acc-ann")) == 1

    serve(scenario, QUIET)


ORDER = {"symbol": "AAPL", "side": "buy", "type": "limit", "price": 1, "quantity": 1}
NUMBERS = [
    "1e308", "-1e308", "1e-320", "5e-324", "-0.0", "0", "-1", "9007199254740993",
    "18446744073709551616", "1e15", "4503599627370496", "1099511627776", "1.001",
    "true", "null", '"1"', "[]", "1e400", "NaN", "Infinity", "-Infinity", "9" * 400,
    "0x10", "01",
]  # fmt: skip


@pytest.mark.req("F-100")
@pytest.mark.parametrize("side", ["buy", "sell"])
@pytest.mark.parametrize("keys", [("price",), ("quantity",), ("price", "quantity")])
def test_no_number_is_too_strange_to_be_refused(keys, side):
    async def scenario(venue):
        for number in NUMBERS:
            # Anew each time: three messages that are no JSON would be the end.
            client = await authenticated(venue, TRADING)
            fields = {**ORDER, "side": side, **dict.fromkeys(keys, "@")}
            text = compact("submit_order", **fields).replace(b'"@"', number.encode())
            client.transport.send(WSMsgType.TEXT, text)
            await client.until(lambda c=client: len(c.told) == 2)
            code = client.told[1]["data"]["code"]
            assert code in ("invalid_parameter", "insufficient_funds"), number
            client.transport.disconnect()
            await client.gone()

        ledger, before = venue.market.ledger, Exchange(config, 0).ledger
        assert ledger.conserved() == []
        assert ledger.amounts("acc-ann", "USD") == before.amounts("acc-ann", "USD")

    limits = LimitsConfig(authentication_per_minute=1000)
    config = msgspec.structs.replace(QUIET, limits=limits)
    serve(scenario, config)


@pytest.mark.req("F-98", "LM-05")
@pytest.mark.parametrize(
    "count", [1000, pytest.param(10_000, marks=pytest.mark.stress)]
)
def test_of_a_thousand_orders_a_second_a_hundred_a_minute_are_accepted(count):
    result = attacked("orders", count, authentication_per_minute=1000)

    assert result["order_response"] == 100
    assert result["rate_limit_exceeded"] > 100
    assert result["4001"] >= 1
    assert result["sent"] == count or result["1013"] == 1


@pytest.mark.req("F-97", "LM-03")
def test_who_guesses_credentials_has_ten_tries_a_minute():
    results = []

    async def scenario(venue):
        healthy = await Healthy.joined(venue)
        async with Attack(venue, "guesses", 30) as attack:
            results.append(await healthy.unharmed_by(attack))
        # Somebody else, from somewhere else, is not locked out.
        other = await connected(venue, TRADING)
        results.append(await log_in(other, venue, account=1))

    serve(scenario, CONFIG)

    guesses, other = results
    assert guesses["invalid_credentials"] == guesses["4000"] == 10
    assert guesses["rate_limit_exceeded"] == guesses["4001"] == 20
    assert other["status"] == "success"


# ── resources ─────────────────────────────────────────────────────────────────────────


def rss_mib(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.req("F-94", "SEC-16")
@pytest.mark.parametrize("count", [5, pytest.param(100, marks=pytest.mark.stress)])
def test_many_slow_consumers_are_given_up_one_by_one(count):
    """The kernel keeps a part of what they do not read; the rest is bounded by us."""
    key = "orderbook:AAPL:1"
    bound = 256 * 1024

    async def scenario(venue):
        healthy = await Healthy.joined(venue)
        before = most = rss_mib(os.getpid())
        async with Attack(venue, "slow_consumers", count) as attack:
            assert await attack.line() == "ready"

            def given_up():
                nonlocal most
                most = max(most, rss_mib(os.getpid()))
                return not venue._subscribers.get(key)

            await healthy.until(given_up, attack.name)
            attack.process.stdin.write(b"\n")
            result = await attack.end()
        print(f"RSS {before:.0f} MiB before, {most:.0f} MiB at most")

        assert sum(result.values()) == count
        assert set(result) <= {"4001", "1006"}
        # High water, the bound, and as much again for what is being joined.
        print(
            f"bound {40 + count * 2 * (bound + 256 * 1024) / 2**20:.0f} MiB; {result}"
        )
        assert most - before < 40 + count * 2 * (bound + 256 * 1024) / 2**20

    limits = LimitsConfig(outbound_bytes=bound)
    traders = TradersConfig(rate=2000 / count)
    serve(scenario, msgspec.structs.replace(CONFIG, limits=limits, traders=traders))


@pytest.mark.req("F-88")
def test_without_descriptors_the_old_are_served_and_the_new_wait():
    limited = "ulimit -n 64; exec $0 -m feedhandler --log-level error venue --port 0"

    async def scenario():
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", limited, sys.executable, cwd=ROOT,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        line = (await process.stdout.readline()).decode()
        port = int(line.split()[-1].rpartition(":")[2])
        venue = Elsewhere(f"ws://127.0.0.1:{port}")
        old = await connected(venue)
        at_rest = descriptors(process.pid)
        sockets = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
        await full(process.pid)
        answer = await old.ask("subscribe", channels=["trades:AAPL"])
        assert answer["data"]["status"] == "success"
        for _, writer in sockets:
            writer.close()
        new = await connected(venue)
        answer = await new.ask("subscribe", channels=["trades:AAPL"])
        assert answer["data"]["status"] == "success"
        await new.until(lambda: new.on("trades:AAPL"))
        await settled(lambda: descriptors(process.pid) <= at_rest + 1)
        assert old.close is None
        process.terminate()
        await process.wait()
        await old.gone()

    asyncio.run(scenario())


class Elsewhere:
    """A venue in another process."""

    def __init__(self, url):
        self.url = url


async def full(pid):
    await settled(lambda: descriptors(pid) >= 64)


async def settled(condition):
    async with asyncio.timeout(ATTACK_S):
        while not condition():
            await asyncio.sleep(0.01)
