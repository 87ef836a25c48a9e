"""How many instructions the hot path executes, by callgrind, against those recorded.

``python -m benchmarks.instructions [--record] [--runs N]``: exit code 1 for a symbol
that executes over 2 % more than ``instructions.json`` says, on the same toolchain; on
another one it says that nothing was compared, without valgrind that nothing was done.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks import harness, updates

RECORD = harness.ROOT / "benchmarks/instructions.json"
RECORDING = harness.ROOT / "tests/data/engine.jsonl.gz"

MESSAGES = 2_000
BOOKS = 10
DEPTH = 10
MOST_MORE = 0.02
TIMEOUT_S = 120

DECODERS = {"msgspec": "codec.MsgspecCodec.decode", "scan": "codec.ScanCodec.decode"}
# Called through tables of methods, so that the compiler keeps each of them as it is.
SYMBOLS = (
    "tracker.Tracker.on_book",
    "tracker.Tracker.on_trade",
    "sync.Sync.delta",
    "book.OrderBook.update",
    "tracker.Tracker.publish",
    "publisher.Publisher.on_quote",
    "ring.Ring.publish",
    "board.Board.store_quote",
)
FEED = "tracker.Tracker.feed"
# What decode() calls when it has decoded.
INBOX = ("on_book", "on_trade", "on_ticker", "on_candle")
ALONE = "decode() less what the inbox does"
# Which code libc and the compiler's own functions choose, at run time.
CPU_FLAGS = ("avx", "avx2", "avx512f", "bmi2", "erms", "fsrm", "sse4_2")


class Count(NamedTuple):
    """The calls of a function and all instructions in them, with what they call."""

    calls: int
    instructions: int

    @property
    def each(self) -> float:
        """The instructions of one call."""
        return self.instructions / max(1, self.calls)


Counts = dict[str, Count]


def why_not() -> str | None:
    """Return why nothing can be counted here; None if it can."""
    if shutil.which("valgrind") is None:
        return "skipped: valgrind is not installed"
    if not harness.loops().CAN_START_COUNTING:
        return "skipped: valgrind/callgrind.h was not there when loops.pyx was built"
    return None


def c_name(symbol: str) -> str:
    """Return the name that Cython gives a method of ours: module.Class.method."""
    module, kind, method = symbol.split(".")
    return f"__pyx_f_11feedhandler_{len(module)}{module}_{len(kind)}{kind}_{method}"


# ── counting ──────────────────────────────────────────────────────────────────────────


def messages(count: int) -> list[list[bytes]]:
    """Return *count* seeded updates of ten books, and as much of a recording."""
    channels = [f"orderbook:S{number}:{DEPTH}" for number in range(BOOKS)]
    stream = updates.stream([DEPTH] * BOOKS, "mixed", count)
    frames = updates.first_frames(stream, channels) + updates.frames(stream, channels)
    return [frames, harness.frames(RECORDING)[:count]]


def count(codec: str, parts: list[list[bytes]]) -> Counts:
    """Feed *parts* in a process under callgrind; return what it executed, by symbol."""
    environment = {
        name: value for name in ("PATH", "HOME") if (value := os.environ.get(name))
    }
    # Memory is laid out the same way each time, and nothing else runs.
    environment |= {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}
    setarch = ["setarch", "-R"] if shutil.which("setarch") else []
    program = [sys.executable, "-m", "benchmarks.counted", codec]
    payload = b"\n\n".join(b"\n".join(part) for part in parts)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        valgrind = [
            "valgrind", "--tool=callgrind", "-q", f"--callgrind-out-file={out}",
            "--instr-atstart=no", f"--toggle-collect={c_name(FEED)}",
        ]  # fmt: skip
        # Once without, so that no run finds anything that Python has yet to compile.
        for command in (program, [*setarch, *valgrind, *program]):
            subprocess.run(
                command,
                cwd=harness.ROOT,
                env=environment,
                check=True,
                timeout=TIMEOUT_S,
                input=payload,
            )
        found = inclusive(out.read_text())
    none = Count(0, 0)
    total = found.get(c_name(FEED), none).instructions
    counts = {FEED: Count(sum(map(len, parts)), total)}
    for symbol in (DECODERS[codec], *SYMBOLS):
        counts[symbol] = found.get(c_name(symbol), none)
    decode = counts[DECODERS[codec]]
    inbox = sum(
        found.get(c_name(f"tracker.Tracker.{name}"), none).instructions
        for name in INBOX
    )
    counts[ALONE] = Count(decode.calls, decode.instructions - inbox)
    return counts


_NAMED = re.compile(r"(?P<key>c?fn)=\((?P<number>\d+)\)(?: (?P<name>.*))?")


def inclusive(text: str) -> Counts:
    """Return the inclusive counts in a callgrind file.

    Not of functions that call themselves. A function's own lines are "line cost"; each
    "calls=" says how many calls of the last "cfn=" the next line's cost is of.
    """
    names: dict[str, str] = {}
    cost: dict[str, int] = {}
    calls: dict[str, int] = {}
    function = called = ""
    for line in text.splitlines():
        if named := _NAMED.fullmatch(line):
            if named["name"]:
                names[named["number"]] = named["name"]
            if named["key"] == "fn":
                function = names[named["number"]]
            else:
                called = names[named["number"]]
        elif line.startswith("calls="):
            number = int(line.removeprefix("calls=").split()[0])
            calls[called] = calls.get(called, 0) + number
        elif line[:1].isdigit() or line[:1] in ("+", "-", "*"):
            values = line.split()
            if len(values) > 1:
                cost[function] = cost.get(function, 0) + int(values[1])
    return {name: Count(calls.get(name, 0), total) for name, total in cost.items()}


# ── the record ────────────────────────────────────────────────────────────────────────


def first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0]


def toolchain() -> dict[str, str]:
    """Return all that makes other instructions out of the same source."""
    cpu = dict(
        line.split("\t: ", 1)
        for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        for line in [line.replace("\t\t: ", "\t: ")]
        if "\t: " in line
    )
    flags = cpu.get("flags", "").split()
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    return {
        "cc": first_line(compiler, "--version"),
        "python": f"{platform.python_version()}, {', '.join(platform.python_build())}",
        "cython": importlib.metadata.version("cython"),
        "msgspec": importlib.metadata.version("msgspec"),
        "valgrind": first_line("valgrind", "--version"),
        "libc": " ".join(platform.libc_ver()),
        "machine": platform.machine(),
        "cpu": f"{cpu.get('model name', '?')}, family {cpu.get('cpu family', '?')}, "
        f"model {cpu.get('model', '?')}",
        "cpu flags": " ".join(flag for flag in CPU_FLAGS if flag in flags),
    }


def differences(recorded: dict[str, str], now: dict[str, str]) -> list[str]:
    """Name what is another than when it was recorded."""
    return [
        f"{name}: {recorded.get(name)!r} recorded, {now.get(name)!r} here"
        for name in dict.fromkeys([*recorded, *now])
        if recorded.get(name) != now.get(name)
    ]


def compare(recorded: Counts, now: Counts) -> tuple[list[str], list[str]]:
    """Return a table of both, and the symbols that got worse, in words."""
    rows = [f"{'instructions of one call':<38}{'recorded':>10}{'now':>10}{'in all':>9}"]
    worse = []
    for symbol in dict.fromkeys([*recorded, *now]):
        old, new = recorded.get(symbol), now.get(symbol)
        if old is None or old.instructions == 0:
            rows.append(f"{symbol:<38}{'-':>10}{new.each if new else 0:10.1f}")
            continue
        if new is None or new.instructions == 0:
            rows.append(f"{symbol:<38}{old.each:10.1f}{'-':>10}")
            worse.append(f"{symbol} is not there any more, or was inlined: record anew")
            continue
        # Of all calls together: twice as many are no improvement.
        more = new.instructions / old.instructions - 1
        rows.append(f"{symbol:<38}{old.each:10.1f}{new.each:10.1f}{more:+9.2%}")
        if more > MOST_MORE:
            worse.append(f"{symbol}: {more:+.2%}, and {MOST_MORE:.0%} is the most")
    return rows, worse


def read(path: Path = RECORD) -> tuple[dict[str, str], dict[str, Counts]]:
    """Return the toolchain that was recorded, and the counts of each codec."""
    if not path.exists():
        return {}, {}
    data = json.loads(path.read_text())
    return data["toolchain"], {
        codec: {symbol: Count(*each) for symbol, each in counts.items()}
        for codec, counts in data["counts"].items()
    }


def write(now: dict[str, Counts], path: Path = RECORD) -> None:
    """Record: a line of [calls, instructions] for each symbol."""
    rows = {
        codec: ",\n".join(
            f"   {json.dumps(symbol)}: [{each.calls}, {each.instructions}]"
            for symbol, each in counts.items()
        )
        for codec, counts in now.items()
    }
    counts = ",\n".join(
        f'  "{codec}": {{\n{text}\n  }}' for codec, text in rows.items()
    )
    made_by = json.dumps(toolchain(), indent=1).replace("\n", "\n ")
    path.write_text(f'{{\n "toolchain": {made_by},\n "counts": {{\n{counts}\n }}\n}}\n')


def spread(codec: str, runs: list[Counts]) -> str:
    """Say how far the runs are apart, at the symbol where they are furthest."""
    apart = {
        symbol: max(run[symbol].instructions for run in runs)
        / max(1, min(run[symbol].instructions for run in runs))
        - 1
        for symbol in runs[0]
    }
    symbol = max(apart, key=lambda name: apart[name])
    return f"{codec}: {len(runs)} runs differ by at most {apart[symbol]:.4%} ({symbol})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help=f"into {RECORD.name}")
    parser.add_argument("--runs", type=int, default=1, help="to see how they differ")
    options = parser.parse_args()
    if reason := why_not():
        print(reason)
        return 0
    now, parts = {}, messages(MESSAGES)
    for codec in harness.CODECS:
        runs = [count(codec, parts) for _ in range(options.runs)]
        now[codec] = runs[0]
        if options.runs > 1:
            print(spread(codec, runs))
    if options.record:
        write(now)
        print(f"recorded in {RECORD.name}")
    return report(now)


def report(now: dict[str, Counts]) -> int:
    """Print the tables; return 1 if something got worse, 0 if it could not be known."""
    made_by, recorded = read()
    changes = differences(made_by, toolchain())
    failures = []
    for codec, counts in now.items():
        rows, worse = compare(recorded.get(codec, {}), counts)
        print(f"\n{codec}, {counts[FEED].calls:,} messages", *rows, sep="\n")
        if codec not in recorded:
            print(f"NOT COMPARED: {codec} is not recorded")
        failures += [f"{codec}, {text}" for text in worse]
    if changes:
        print("\nNOT COMPARED, for the toolchain is another:", *changes, sep="\n  ")
        return 0
    if failures:
        print("\nFAILED:", *failures, sep="\n  ")
    return bool(failures)


# ── in the tests ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("codec", harness.CODECS)
def test_every_hot_symbol_is_found(codec: str):
    if reason := why_not():
        pytest.skip(reason)

    counts = count(codec, messages(100))

    assert [symbol for symbol, each in counts.items() if each.instructions <= 0] == []
    assert counts[DECODERS[codec]].calls == counts[FEED].calls


def test_over_two_percent_more_is_worse_and_under_it_is_not():
    _, worse = compare({FEED: Count(10, 1_000)}, {FEED: Count(10, 1_021)})
    _, fine = compare({FEED: Count(10, 1_000)}, {FEED: Count(10, 1_019)})

    assert worse == [f"{FEED}: +2.10%, and 2% is the most"]
    assert fine == []


def test_a_symbol_that_is_gone_is_worse():
    _, worse = compare({FEED: Count(10, 1000)}, {FEED: Count(0, 0)})

    assert "not there any more" in worse[0]


def test_calls_count_with_what_they_call():
    text = "fn=(1) one\n10 5\ncfn=(2) two\ncalls=3 20\n11 70\nfn=(2)\n20 30\n+1 40\n"

    assert inclusive(text) == {"one": Count(0, 75), "two": Count(3, 70)}


if __name__ == "__main__":
    sys.exit(main())
