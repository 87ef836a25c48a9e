"""The command line: parsing, exit codes and signals; the work is done elsewhere.

Exit codes: 0 done, 1 runtime failure, 2 usage or configuration, 3 connection failed,
4 shared memory busy or absent, 130 interrupted.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import math
import os
import signal
import sys
from collections.abc import Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from feedhandler.errors import (
    ConfigError,
    ConnectionFailed,
    FeedError,
    RingAbsent,
    RingError,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from feedhandler.config import FeedConfig
    from feedhandler.consumer import MarketData
    from feedhandler.venue.config import VenueConfig

__all__ = ["main"]

DONE, FAILURE, USAGE, CONNECTION, MEMORY, INTERRUPTED = 0, 1, 2, 3, 4, 130

CHANNELS = ("orderbook", "trades", "ticker", "candles")
SECRET_VARIABLE = "FEEDHANDLER_VENUE_SECRET"
WAIT_S = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors are one line on stderr."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=options.log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    logging.getLogger("picows").setLevel(logging.ERROR)
    try:
        return int(options.command(options))
    except KeyboardInterrupt:
        return INTERRUPTED
    except ConfigError as error:
        return _complain(error, USAGE)
    except ConnectionFailed as error:
        return _complain(error, CONNECTION)
    except RingError as error:
        return _complain(error, MEMORY)
    except BrokenPipeError:
        # Whoever read our output has gone; nothing is left to be said to him.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (FeedError, OSError, TimeoutError) as error:
        return _complain(error, FAILURE)


def _complain(error: BaseException, code: int) -> int:
    text = error.strerror if isinstance(error, OSError) and error.strerror else error
    print(f"feedhandler: {text}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="feedhandler",
        description="Low-latency WebSocket feed handler and reference venue.",
    )
    parser.add_argument(
        "--log-level",
        default="warning",
        choices=("debug", "info", "warning", "error"),
        help="what to log on stderr (default: warning)",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="venue, handler and consumer, for a look")
    demo.add_argument("--seconds", type=_positive, default=None, help="how long")
    demo.set_defaults(command=_demo)

    run = commands.add_parser("run", help="run a feed handler")
    run.add_argument("--config", metavar="FILE", help="a feed's TOML file")
    run.add_argument("--url", help="the venue's base URL, such as ws://127.0.0.1:8765")
    run.add_argument("--symbol", action="append", default=[], metavar="SYMBOL")
    run.add_argument("--depth", type=int, help="order-book levels (default: 10)")
    run.add_argument("--channel", action="append", choices=CHANNELS, default=[])
    run.add_argument("--shm", metavar="NAME", help="name of the feed (default: md)")
    run.add_argument("--retry-forever", action="store_true")
    run.set_defaults(command=_run)

    venue = commands.add_parser("venue", help="run the reference venue")
    venue.add_argument("--config", metavar="FILE", help="venue.toml")
    venue.add_argument("--host")
    venue.add_argument("--port", type=int, help="0 takes a free one (default: 8765)")
    venue.add_argument(
        "--log", metavar="FILE", help="note every message and order here"
    )
    venue.add_argument("--cert", metavar="FILE", help="serve wss with this certificate")
    venue.add_argument("--key", metavar="FILE", help="the certificate's private key")
    venue.add_argument("--seed", type=int, help="of the traders")
    venue.add_argument("--rate", type=_positive, help="of the traders, each symbol")
    venue.add_argument("--replay", metavar="FILE", help="a recorded market X.jsonl.gz")
    venue.add_argument("--speed", type=_speed, help="a factor, or max (default: 1)")
    venue.add_argument("--loop", action="store_true", help="begin again at the end")
    venue.set_defaults(command=_venue)

    tail = commands.add_parser("tail", help="print what a feed publishes")
    tail.add_argument("name", help="name of the feed")
    tail.add_argument("--stream", choices=("quotes", "trades"), default="quotes")
    tail.add_argument("--json", action="store_true", help="one JSON object a line")
    tail.add_argument("--start", choices=("new", "oldest"), default="new")
    tail.add_argument("--count", type=int, help="end after so many records")
    tail.set_defaults(command=_tail)

    segments = commands.add_parser("shm", help="list, inspect and remove segments")
    _add_shm_commands(segments.add_subparsers(required=True, metavar="COMMAND"))
    return parser


def _add_shm_commands(commands: Any) -> None:
    ls = commands.add_parser("ls", help="every segment: state, lock, rate, age")
    stat = commands.add_parser("stat", help="all that a feed's segments say")
    rm = commands.add_parser("rm", help="remove what a dead writer left")
    for command, run in ((ls, _shm_ls), (stat, _shm_stat), (rm, _shm_rm)):
        command.add_argument("--directory", default="/dev/shm", metavar="FOLDER")
        command.set_defaults(command=run)
    for command in (ls, stat):
        command.add_argument("--json", action="store_true", help="JSON, for programs")
        command.add_argument(
            "--seconds", type=_positive, default=0.5, help="to measure rates over"
        )
    for command in (stat, rm):
        command.add_argument("name", help="name of the feed")
    rm.add_argument("--stream", help="this one alone")


def _positive(text: str) -> float:
    value = float(text)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _speed(text: str) -> float | str:
    return "max" if text == "max" else _positive(text)


# ── run ───────────────────────────────────────────────────────────────────────────────


def _run(options: argparse.Namespace) -> int:
    from feedhandler.handler import FeedHandler

    config = _feed_config(options)
    if not config.instruments:
        raise ConfigError("no instruments: give --symbol, or [[instruments]] in a file")
    if config.loop.cpu >= 0:
        try:
            os.sched_setaffinity(0, {config.loop.cpu})
        except OSError as error:
            raise ConfigError(f"loop.cpu {config.loop.cpu}: {error.strerror}") from None

    async def feed(stop: asyncio.Event) -> int:
        async with FeedHandler(config) as handler:
            print(f"feed {config.shm.name} url={config.url}", flush=True)
            waiting = asyncio.ensure_future(handler.wait())
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if waiting.done():
                waiting.result()
            waiting.cancel()
        return DONE

    return _until_signal(feed)


def _feed_config(options: argparse.Namespace) -> "FeedConfig":
    from feedhandler import config

    loaded = config.load(options.config) if options.config else None
    values = {} if loaded is None else config.as_values(loaded)
    if options.url:
        values["url"] = options.url
    if options.shm:
        values.setdefault("shm", {})["name"] = options.shm
    if options.retry_forever:
        values.setdefault("limits", {})["retry_forever"] = True
    if options.symbol:
        chosen: dict[str, Any] = {}
        if options.depth is not None:
            chosen["depth"] = options.depth
        if options.channel:
            chosen["channels"] = options.channel
        values["instruments"] = [
            {"symbol": symbol, **chosen} for symbol in dict.fromkeys(options.symbol)
        ]
    return config.build(values)


# ── venue ─────────────────────────────────────────────────────────────────────────────


def _venue(options: argparse.Namespace) -> int:
    from feedhandler.venue import Journal, Venue

    config, secret = _with_account(_venue_config(options))
    try:
        journal = Journal.at(options.log) if options.log else None
    except OSError as error:
        raise ConfigError(f"--log {options.log}: {error.strerror}") from None

    async def serve(stop: asyncio.Event) -> int:
        venue = Venue(config, journal=journal)
        try:
            await venue.start()
        except OSError as error:
            where = f"{config.host}:{config.port}"
            return _complain(
                FeedError(f"cannot listen on {where}: {os.strerror(error.errno or 0)}"),
                FAILURE,
            )
        try:
            print(f"venue listening on {venue.url}", flush=True)
            if secret:
                print(f"key {config.accounts[0].api_key} secret {secret}", flush=True)
            await stop.wait()
        finally:
            await venue.stop()
            if journal is not None:
                journal.close()
        return DONE

    return _until_signal(serve)


def _with_account(config: "VenueConfig") -> tuple["VenueConfig", str]:
    """Give a venue without accounts one; return the secret if it is to be told."""
    from feedhandler.venue.config import with_demo_account

    if config.accounts:
        return config, ""
    secret = os.environ.get(SECRET_VARIABLE, "")
    config = with_demo_account(config, secret)
    return config, "" if secret else config.accounts[0].secret


def _venue_config(options: argparse.Namespace) -> "VenueConfig":
    from feedhandler.venue import config

    loaded = config.load(options.config) if options.config else config.VenueConfig()
    values = config.as_values(loaded)
    for key in ("host", "port"):
        if getattr(options, key) is not None:
            values[key] = getattr(options, key)
    for key, option in (("tls_cert", "cert"), ("tls_key", "key")):
        if getattr(options, option) is not None:
            values[key] = getattr(options, option)
    for key in ("seed", "rate"):
        if getattr(options, key) is not None:
            values["traders"][key] = getattr(options, key)
    if options.replay:
        values["replay"] = {"path": options.replay, "loop": options.loop}
        if options.speed is not None:
            values["replay"]["speed"] = options.speed
    elif options.speed is not None or options.loop:
        raise ConfigError("--speed and --loop go with --replay")
    return config.build(**values)


# ── tail ──────────────────────────────────────────────────────────────────────────────


def _tail(options: argparse.Namespace) -> int:
    from feedhandler.consumer import attach

    with attach(options.name) as market, contextlib.suppress(KeyboardInterrupt):
        for printed, line in enumerate(_lines(market, options), 1):
            print(line, flush=True)
            if printed == options.count:
                return DONE
        status = market.status().state
        print(f"feedhandler: feed {options.name} is {status}", file=sys.stderr)
        return DONE if status == "CLOSED" else FAILURE
    return INTERRUPTED


def _lines(market: "MarketData", options: argparse.Namespace) -> Iterator[str]:
    """Yield a line per record until the writer is gone."""
    open_stream = market.quotes if options.stream == "quotes" else market.trades
    stream = open_stream(start=options.start)
    lost = 0
    while True:
        records = stream.poll()
        if stream.lost != lost:
            print(f"feedhandler: lost {stream.lost - lost} records", file=sys.stderr)
            lost = stream.lost
        if len(records):
            symbols = market.symbols()
            yield from (
                _json_line(record, symbols) if options.json else _text(record, symbols)
                for record in records
            )
        elif not stream.wait(WAIT_S) and stream.status in ("CLOSED", "DEAD"):
            return


def _fields(record: "np.void", symbols: list[str]) -> dict[str, Any]:
    """Turn a record into plain values; NaN becomes None."""
    from feedhandler.records import flag_names, trade_flag_names

    assert record.dtype.names is not None
    fields: dict[str, Any] = {"symbol": symbols[int(record["instrument"])]}
    for name in record.dtype.names:
        value = record[name].item()
        if isinstance(value, float) and math.isnan(value):
            value = None
        elif isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        fields[name] = value
    flags = fields["flags"]
    names = flag_names if "bid_price" in fields else trade_flag_names
    fields["flags"] = names(flags)
    fields["epoch"] = flags >> 8
    return fields


def _json_line(record: "np.void", symbols: list[str]) -> str:
    return json.dumps(_fields(record, symbols), separators=(",", ":"))


def _text(record: "np.void", symbols: list[str]) -> str:
    fields = _fields(record, symbols)
    flags = "|".join(fields["flags"])
    if "bid_price" in fields:
        sides = (
            f"{_number(fields['bid_size']):>12} @ {_number(fields['bid_price']):<12} "
            f"{_number(fields['ask_price']):>12} @ {_number(fields['ask_size']):<12}"
        )
        return f"{fields['symbol']:<12} {fields['sequence']:>10} {sides} {flags}"
    return (
        f"{fields['symbol']:<12} {fields['trade_id']:<16} "
        f"{_number(fields['size']):>12} @ {_number(fields['price']):<12} {flags}"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.10g}"


# ── shm ───────────────────────────────────────────────────────────────────────────────


def _shm_ls(options: argparse.Namespace) -> int:
    from feedhandler import shm_table

    watched = shm_table.watch(options.seconds, options.directory)
    shm_table.show_list(watched, options.json)
    return DONE


def _shm_stat(options: argparse.Namespace) -> int:
    from feedhandler import shm_table

    watched = shm_table.watch(options.seconds, options.directory)
    shm_table.show_feed(options.name, watched, options.json)
    return DONE


def _shm_rm(options: argparse.Namespace) -> int:
    from feedhandler import shm

    found = [
        listing
        for listing in shm.list_segments(options.directory)
        if listing.name == options.name
        and (options.stream is None or listing.stream == options.stream)
    ]
    if not found:
        raise RingAbsent(f"no segment of a feed {options.name!r}")
    code = DONE
    for listing in found:
        try:
            shm.remove(listing.name, listing.stream, directory=options.directory)
            print(f"removed {listing.path.name}")
        except RingError as error:
            code = _complain(error, MEMORY)
    return code


# ── demo ──────────────────────────────────────────────────────────────────────────────


def _demo(options: argparse.Namespace) -> int:
    from feedhandler.demo import demo

    return demo(options.seconds)


# ── loops ─────────────────────────────────────────────────────────────────────────────


def _until_signal(work: Any) -> int:
    """Run *work(stop)* on uvloop; SIGINT and SIGTERM set *stop*, a second one kills."""
    import uvloop

    async def supervise() -> int:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        interrupted: list[int] = []

        def on_signal(number: int) -> None:
            if interrupted:
                os._exit(128 + number)
            interrupted.append(number)
            stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, on_signal, number)
        task: Coroutine[Any, Any, int] = work(stop)
        code = await task
        return INTERRUPTED if signal.SIGINT in interrupted else code

    return uvloop.run(supervise())


if TYPE_CHECKING:
    _Records = npt.NDArray[np.void]
