"""The command line: parsing, exit codes and signals; the work is done elsewhere.

Exit codes: 0 done, 1 runtime failure, or a refusal, 2 usage or configuration, 3
connection failed, 4 shared memory busy or absent, 5 nobody knows what became of an
order, 130 interrupted.
"""

import argparse
import asyncio
import contextlib
import logging
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from feedhandler.credentials import (
    KEY_VARIABLE,
    SECRET_VARIABLE,
    find_key,
    find_secret,
)
from feedhandler.errors import (
    ConfigError,
    ConnectionFailed,
    FeedError,
    OutcomeUnknown,
    RingAbsent,
    RingError,
)
from feedhandler.printable import printable
from feedhandler.secret import shorten

if TYPE_CHECKING:
    from feedhandler.config import FeedConfig
    from feedhandler.consumer import MarketData
    from feedhandler.secret import Secret
    from feedhandler.venue.config import VenueConfig

__all__ = ["main"]

log = logging.getLogger("feedhandler.cli")

DONE, FAILURE, USAGE, CONNECTION, MEMORY, UNKNOWN, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130

CHANNELS = ("orderbook", "trades", "ticker", "candles")
STREAMS = ("quotes", "trades", "orders", "fills", "account", "notices")
VENUE_VARIABLE = "FEEDHANDLER_VENUE_SECRET"
WAIT_S = 0.1
DEFAULT_LEVEL = "warning"
NO_FEED_OPTIONS: dict[str, Any] = {
    "shm": "",
    "depth": None,
    "retry_forever": False,
    "channel": [],
}
HIDDEN = "…"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors are one line on stderr."""
    options = _parser().parse_args(arguments)
    _log_to_stderr(options.log_level)
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
    except OutcomeUnknown as error:
        return _complain(error, UNKNOWN)
    except BrokenPipeError:
        # Whoever read our output has gone; nothing is left to be said to him.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (FeedError, OSError, TimeoutError) as error:
        return _complain(error, FAILURE)


def _complain(error: BaseException, code: int) -> int:
    text = error.strerror if isinstance(error, OSError) and error.strerror else error
    print(f"feedhandler: {printable(str(text))}", file=sys.stderr)
    return code


class _OneLine(logging.Formatter):
    """Escapes what a message has from the wire, so that nobody forges a line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        record.message = printable(record.message)
        return super().formatMessage(record)


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("picows").setLevel(logging.ERROR)


class _Parser(argparse.ArgumentParser):
    """Takes whole names only, so that no --secret turns into a --secret-file."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, without a value that came in vain: it may be a secret."""
        message = re.sub(
            "(unrecognized arguments: (?:--[a-z-]++[ =]?)?+|explicit argument ).+",
            rf"\1{HIDDEN}",
            message,
            flags=re.DOTALL,
        )
        super().error(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="feedhandler",
        description="Low-latency WebSocket feed handler and reference venue.",
    )
    parser.add_argument(
        "--log-level",
        default=DEFAULT_LEVEL,
        choices=("debug", "info", "warning", "error"),
        help="what to log on stderr (default: warning)",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="venue, handler and consumer, for a look")
    demo.add_argument("--seconds", type=_positive, default=None, help="how long")
    demo.set_defaults(command=_demo)

    run = commands.add_parser("run", help="run a feed handler")
    _add_feed_options(run)
    run.set_defaults(command=_run)

    configuration = commands.add_parser("config", help="look at a configuration")
    _add_config_commands(configuration.add_subparsers(required=True, metavar="COMMAND"))

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
    tail.add_argument("--stream", choices=STREAMS, default="quotes")
    tail.add_argument("--json", action="store_true", help="one JSON object a line")
    tail.add_argument("--start", choices=("new", "oldest"), default="new")
    tail.add_argument("--count", type=int, help="end after so many records")
    tail.set_defaults(command=_tail)

    orders = commands.add_parser("order", help="submit, cancel, modify, list, watch")
    _add_order_commands(orders.add_subparsers(required=True, metavar="COMMAND"))

    segments = commands.add_parser("shm", help="list, inspect and remove segments")
    _add_shm_commands(segments.add_subparsers(required=True, metavar="COMMAND"))
    return parser


def _add_feed_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", metavar="FILE", help="a feed's TOML file")
    command.add_argument(
        "--url", help="the venue's base URL: wss://… or ws://127.0.0.1"
    )
    command.add_argument("--symbol", action="append", default=[], metavar="SYMBOL")
    command.add_argument("--depth", type=int, help="order-book levels (default: 10)")
    command.add_argument("--channel", action="append", choices=CHANNELS, default=[])
    command.add_argument("--shm", metavar="NAME", help="name of the feed (default: md)")
    command.add_argument("--retry-forever", action="store_true")
    _add_credentials(command)


def _add_credentials(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--api-key", metavar="KEY", help="or the variable FEEDHANDLER_API_KEY"
    )
    # Never the secret itself: everybody on the machine can list arguments.
    secret = command.add_mutually_exclusive_group()
    secret.add_argument(
        "--secret-file",
        metavar="FILE",
        help="of mode 0600, with the key's secret; or FEEDHANDLER_API_SECRET",
    )
    secret.add_argument(
        "--secret-stdin", action="store_true", help="the secret comes by a pipe"
    )


def _add_config_commands(commands: Any) -> None:
    show = commands.add_parser(
        "show",
        help="the configuration that run would have with these options, as TOML",
    )
    _add_feed_options(show)
    show.set_defaults(command=_config_show)


def _add_order_commands(commands: Any) -> None:
    submit = commands.add_parser("submit", help="send an order, print the answer")
    submit.add_argument("symbol")
    submit.add_argument("side", choices=("buy", "sell"))
    submit.add_argument("quantity", type=_positive)
    # Never guessed: who forgets a price must not get a market order.
    submit.add_argument(
        "--type", required=True, choices=("market", "limit", "stop", "stop_limit")
    )
    submit.add_argument("--tif", choices=("gtc", "ioc", "fok", "day"))
    cancel = commands.add_parser("cancel", help="take an order, or all, out")
    modify = commands.add_parser("modify", help="change an order")
    for command in (submit, modify):
        command.add_argument("--price", type=_positive)
        command.add_argument("--stop-price", type=_positive)
    modify.add_argument("--quantity", type=_positive, help="the new total")
    submit.add_argument("--client-order-id", metavar="ID")
    for command in (cancel, modify):
        which = command.add_mutually_exclusive_group(required=True)
        which.add_argument("--order-id", metavar="ID")
        which.add_argument("--client-order-id", metavar="ID")
        if command is cancel:
            which.add_argument("--all", action="store_true")
    ls = commands.add_parser("list", help="the open orders, and the account")
    watch = commands.add_parser("watch", help="print orders and fills as they happen")
    for command in (submit, cancel, modify, ls, watch):
        command.add_argument("--config", metavar="FILE", help="a feed's TOML file")
        command.add_argument("--url", help="the venue's base URL")
        command.add_argument("--json", action="store_true", help="JSON, for programs")
        _add_credentials(command)
        command.set_defaults(command=_order, order_command=command.prog.split()[-1])


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
    from feedhandler import collector
    from feedhandler.event_loop import FeedEventLoop
    from feedhandler.handler import FeedHandler

    config = _feed_config(options)
    secret = _secret(options, config)
    if not config.instruments:
        raise ConfigError("no instruments: give --symbol, or [[instruments]] in a file")
    if config.loop.cpu >= 0:
        try:
            os.sched_setaffinity(0, {config.loop.cpu})
        except OSError as error:
            raise ConfigError(f"loop.cpu {config.loop.cpu}: {error.strerror}") from None

    async def feed(stop: asyncio.Event) -> int:
        async with FeedHandler(config, secret=secret) as handler:
            print(f"feed {config.shm.name} url={config.url}", flush=True)
            if config.loop.gc == "automatic":
                collector.settle()
            waiting = asyncio.ensure_future(handler.wait())
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if waiting.done():
                waiting.result()
            waiting.cancel()
        return DONE

    return _until_signal(feed, lambda: FeedEventLoop(config.loop.mode == "spin"))


def _secret(options: argparse.Namespace, config: "FeedConfig") -> "Secret | None":
    return find_secret(
        config.credentials.api_key,
        config.credentials.secret_file,
        os.environ,
        sys.stdin.buffer if options.secret_stdin else None,
    )


def _feed_config(options: argparse.Namespace) -> "FeedConfig":
    """Put options over the file, and the file over the environment."""
    from feedhandler import config

    loaded = config.load(options.config) if options.config else None
    values = {} if loaded is None else config.as_values(loaded)
    if options.url:
        values["url"] = options.url
    if options.shm:
        values.setdefault("shm", {})["name"] = options.shm
    if options.retry_forever:
        values.setdefault("limits", {})["retry_forever"] = True
    credentials = values.setdefault("credentials", {})
    if options.secret_file:
        credentials["secret_file"] = options.secret_file
    given = options.api_key or credentials.get("api_key", "")
    credentials["api_key"] = find_key(given, os.environ)
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


def _order(options: argparse.Namespace) -> int:
    from feedhandler import order_commands

    if options.log_level == DEFAULT_LEVEL:
        # What is wrong is told once, at the end.
        logging.getLogger("feedhandler").setLevel(logging.CRITICAL)
    of_feed = argparse.Namespace(**NO_FEED_OPTIONS | vars(options) | {"symbol": []})
    config = _feed_config(of_feed)
    secret = _secret(options, config)
    try:
        return _until_signal(
            lambda stop: order_commands.run(options, config, secret, stop)
        )
    except ValueError as error:
        return _complain(error, USAGE)


def _config_show(options: argparse.Namespace) -> int:
    from feedhandler import config

    values = config.as_values(_feed_config(options))
    values["credentials"]["api_key"] = shorten(values["credentials"]["api_key"])
    print(config.as_toml(config.build(values)), end="")
    return DONE


# ── venue ─────────────────────────────────────────────────────────────────────────────


def _venue(options: argparse.Namespace) -> int:
    from feedhandler.venue import Journal, Venue

    config, account = _with_account(_venue_config(options))
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
            if account:
                print(account, flush=True)
            await stop.wait()
        finally:
            await venue.stop()
            if journal is not None:
                journal.close()
        return DONE

    return _until_signal(serve)


def _with_account(config: "VenueConfig") -> tuple["VenueConfig", str]:
    """Give a venue without accounts one; return what is to be told of it."""
    from feedhandler.venue.config import with_demo_account

    if config.accounts:
        return config, ""
    secret = os.environ.get(VENUE_VARIABLE, "")
    config = with_demo_account(config, secret)
    made = config.accounts[0]
    told = f" secret {made.secret}" if not secret else ""
    return config, f"key {made.api_key}{told}"


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
    from feedhandler import lines

    write = lines.as_json if options.json else lines.as_text
    stream = getattr(market, options.stream)(start=options.start)
    lost = 0
    while True:
        records = stream.poll()
        if stream.lost != lost:
            print(f"feedhandler: lost {stream.lost - lost} records", file=sys.stderr)
            lost = stream.lost
        if len(records):
            symbols = market.symbols()
            yield from (write(options.stream, record, symbols) for record in records)
        elif not stream.wait(WAIT_S) and stream.status in ("CLOSED", "DEAD"):
            return


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

    # Its venue is its own, and nobody's account is known there.
    for variable in (KEY_VARIABLE, SECRET_VARIABLE):
        os.environ.pop(variable, None)
    return demo(options.seconds)


# ── loops ─────────────────────────────────────────────────────────────────────────────


def _until_signal(
    work: Any, new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> int:
    """Run *work(stop)*, on uvloop if on no other; SIGINT and SIGTERM set *stop*.

    A second one kills.
    """
    import uvloop

    async def supervise() -> int:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_unawaited)
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

    with asyncio.Runner(loop_factory=new_loop or uvloop.new_event_loop) as runner:
        return runner.run(supervise())


def _log_unawaited(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what a loop tells of an error; who awaits a connection knows of his already.

    A peer that hangs up in a TLS handshake comes as a class, which is no traceback.
    """
    error = context.get("exception")
    ours = isinstance(error, Exception) and not isinstance(error, OSError)
    log.log(
        logging.ERROR if ours else logging.DEBUG,
        "%s error=%r",
        context.get("message"),
        error,
        exc_info=error if ours else None,
    )
