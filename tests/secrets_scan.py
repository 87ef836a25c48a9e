"""Look for a secret in what a program leaves, as it is and as it may be encoded."""

import base64
import copy
import dataclasses
import gc
import pickle
import re
import traceback
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import msgspec
from rich.console import Console
from rich.pretty import Pretty

SIMPLE = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
PERCENT = re.compile(rb"%([0-9a-fA-F]{2})")
ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)


def find(haystack: bytes | str, needles: dict[str, str | bytes]) -> list[str]:
    """Return the names of the needles in the haystack, each with how it is written."""
    if isinstance(haystack, str):
        haystack = haystack.encode("utf-8", "surrogateescape")
    straight = dict(readings(haystack))
    found = []
    for name, needle in needles.items():
        value = needle.encode() if isinstance(needle, str) else needle
        assert len(value) >= 8, f"{name} is too short to be told from chance"
        found += [f"{name} {how}" for how, text in straight.items() if value in text]
        found += [f"{name} {how}" for how, text in written(value) if text in haystack]
    return found


def readings(text: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the text as it is, and with what escapes it undone."""
    yield "plain", text
    if b"%" in text:
        yield "percent-encoded", PERCENT.sub(lambda m: bytes([int(m[1], 16)]), text)
    if b"\\" in text:
        yield "escaped", ESCAPE.sub(unescaped, text)


def unescaped(match: re.Match[bytes]) -> bytes:
    """Undo an escape of JSON or of repr(); that of a character becomes its UTF-8."""
    character, byte, simple = match.groups()
    if character:
        return chr(int(character, 16)).encode("utf-8", "surrogatepass")
    return bytes([int(byte, 16)]) if byte else SIMPLE.get(simple, simple)


def written(value: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the value in the alphabets that hide all of it; base64 begins anywhere."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for before in range(3):
            text = encode(bytes(before) + value)
            # What the neighbours have a part in is not compared.
            yield (
                "in base64",
                text[-(-before * 8 // 6) : (before + len(value)) * 8 // 6],
            )
    yield "in hex", value.hex().encode()
    yield "in hex", value.hex().upper().encode()
    yield "backwards", value[::-1]
    yield "in UTF-16", value.decode("utf-8", "replace").encode("utf-16-le")


# ── objects ───────────────────────────────────────────────────────────────────────────


def showings(thing: Any) -> Iterator[str]:
    """Yield all that somebody may print or write of an object, or is told why not."""
    yield from (repr(thing), str(thing), f"{thing}", f"{[thing]} {(thing,)}")
    yield repr([getattr(thing, name, None) for name in dir(thing) if name != "reveal"])
    yield repr(getattr(thing, "__dict__", None))
    encoders: list[Callable[[Any], Any]] = [
        pickle.dumps, copy.copy, copy.deepcopy, vars, dataclasses.asdict,
        msgspec.structs.asdict, msgspec.to_builtins, msgspec.json.encode,
        msgspec.msgpack.encode, pretty,
    ]  # fmt: skip
    for encode in encoders:
        try:
            yield repr(encode(thing))
        except Exception as error:
            yield traced(error)


def pretty(thing: Any) -> str:
    console = Console(file=StringIO(), width=200)
    console.print(Pretty(thing, expand_all=True))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def traced(error: BaseException) -> str:
    """Return a traceback with the locals of every frame, and of every cause."""
    whole = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(whole.format())


def dump_of_ours() -> Iterator[str]:
    """Yield every object of the package that the collector knows, as it is shown."""
    for thing in gc.get_objects():
        if str(type(thing).__module__).startswith("feedhandler."):
            yield from (repr(thing), repr(getattr(thing, "__dict__", None)))
            slots = getattr(type(thing), "__slots__", ())
            yield repr([getattr(thing, name, None) for name in slots])
