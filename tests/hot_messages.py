"""Hot messages as venues send them, almost so, and spoilt: all from one Random."""

import re
from collections.abc import Iterator, Sequence
from random import Random

Fields = list[tuple[bytes, bytes]]

ODD_NUMBERS = [
    b"00", b"01", b"007", b"00.5", b"1.", b".5", b".", b"", b"1e5", b"1E5", b"1e+5",
    b"1e-5", b"1.5e3", b"1e-400", b"1e400", b"5e-324", b"-0", b"-0.0", b"-1", b"+1",
    b"--1", b"1-", b"1.2.3", b"1..2", b"NaN", b"Infinity", b"-Infinity", b"null",
    b"true", b'"1"', b"[]", b"{}", b"[1]", b" 1", b"1 ", b"1_0", b"0x1", b"1f", b"1,",
    b"1:2", b"1/2", b"1\x00", b"\xd9\xa1", b"1" * 40, b"0." + b"0" * 40 + b"1",
    b"123456789012345678", b"1234567890123456.7", b"12345678901234567",
    b"0.1234567890123456", b"0.12345678901234567", b"1.000000000000000000000000",
]  # fmt: skip
EDGES = [0, 1, 9, 10, 99, 2**31, 2**32, 2**43, 2**53, 10**15, 10**16, 2**63, 2**64]
ODD_TEXTS = [
    b'\\"', b"\\\\", b"\\/", b"\\n", b"\\u0041", b"\\u00e9", b"\\ud83d\\ude00",
    b"\\ud800", b"\\x", b"\\", b'"', b"\x7f", b"\xc3\xa9", b"\xf0\x9f\x98\x80", b"\x80",
    b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xe2\x80\xa8",
    *(bytes([control]) for control in range(0x20)),
]  # fmt: skip
PLAIN = bytes(set(range(0x20, 0x80)) - set(b'"\\'))
KNOWN_TEXTS = [b"AAPL", b"BTC-USD", b"orderbook:AAPL:10", b"trades:AAPL", b"t-12345"]
ODD_LEVELS = [
    b"[]", b"[1]", b"[1,2,3]", b"[[1,2]]", b"1", b"null", b"[1, 2]", b"[1,2 ]", b"",
    b'["1","2"]', b"[1,2],", b",[1,2]", b"[1,2", b"1,2]", b"{}", b"[1;2]", b"[1,2]]",
]  # fmt: skip
ODD_SIDES = [b"null", b"{}", b"1", b'""', b"[", b"]", b"[]]", b"[[]]", b"[,]"]
BESIDE = [b" ", b"\n", b"\t\r", b"\x00", b"x", b"}", b"{", b",", b"\xef\xbb\xbf", b"{}"]
SPICE = b'"\\{}[],:.0123456789eE+- \n\x00\x1f\x7f\x80\xff\xc3\xa9tfnu'
NUMBER = re.compile(rb"\d+")


# ── messages from a grammar ───────────────────────────────────────────────────────────


def message(random: Random) -> bytes:
    """Make one of the three types: half of them to the letter, half with oddities."""
    odd = random.choice((0.0, 0.0, 0.02, 0.2))
    kind = random.choice((b"orderbook", b"orderbook_update", b"trade"))
    symbol = (b"symbol", text(random, odd))
    if kind == b"trade":
        side = random.choice((b'"buy"', b'"sell"'))
        if random.random() < odd:
            side = random.choice((b'"BUY"', b'"b\\u0075y"', b'""', b"null", b'"sell '))
        data = [
            symbol,
            (b"price", number(random, odd)),
            (b"size", number(random, odd)),
            (b"side", side),
            (b"trade_id", text(random, odd)),
            (b"trade_time", whole(random, odd, 2**43)),
        ]
    else:
        data = [
            symbol,
            (b"bids", levels(random, odd)),
            (b"asks", levels(random, odd)),
            (b"sequence", whole(random, odd, 2**53)),
        ]
    fields = [
        (b"type", b'"%b"' % kind),
        (b"data", fields_text(random, odd, data)),
        (b"channel", text(random, odd)),
        (b"timestamp", whole(random, odd, 2**43)),
    ]
    made = fields_text(random, odd, fields)
    if random.random() < odd:
        made += random.choice(BESIDE)
    if random.random() < odd / 2:
        made = random.choice(BESIDE) + made
    return made


def fields_text(random: Random, odd: float, fields: Fields) -> bytes:
    """Write an object; oddly: fields gone, twice, unknown or elsewhere, and spaces."""
    fields = list(fields)
    if random.random() < odd:
        place = random.randrange(len(fields))
        match random.randrange(4):
            case 0:
                del fields[place]
            case 1:
                fields.insert(random.randrange(len(fields) + 1), fields[place])
            case 2:
                fields.insert(place, (b"novel", random.choice((b"1", b'{"a":[]}'))))
            case 3:
                random.shuffle(fields)
    comma, colon = b",", b":"
    if random.random() < odd:
        comma, colon = random.choice(((b", ", b": "), (b" ,", b":"), (b",", b" :")))
    return b"{%b}" % comma.join(b'"%b"%b%b' % (key, colon, v) for key, v in fields)


def levels(random: Random, odd: float) -> bytes:
    """Write a side of a book."""
    if random.random() < odd:
        return random.choice(ODD_SIDES)
    count = random.choice((0, 0, 1, 1, 2, 3, 5, 40))
    return b"[%b]" % b",".join(level(random, odd) for _ in range(count))


def level(random: Random, odd: float) -> bytes:
    if random.random() < odd:
        return random.choice(ODD_LEVELS)
    size = b"0" if random.random() < 0.2 else number(random, odd)
    return b"[%b,%b]" % (number(random, odd), size)


def number(random: Random, odd: float) -> bytes:
    """Write a number, most with two decimals, some with all that a double holds."""
    chance = random.random()
    if chance < odd:
        return random.choice(ODD_NUMBERS)
    if chance < odd + 0.6:
        return b"%d.%02d" % (random.randrange(1, 70_000), random.randrange(100))
    if chance < odd + 0.7:
        return b"%d" % random.randrange(1, 10_000)
    if chance < odd + 0.99:
        return decimal(random, random.randint(1, 16))
    return decimal(random, random.randint(15, 20))


def decimal(random: Random, size: int) -> bytes:
    """Write *size* digits with a point somewhere, or none; now and then about 2**53."""
    value = random.randrange(10**size)
    if size == 16 and random.random() < 0.5:
        value = 2**53 + random.randint(-3, 3)
    digits = b"%d" % value
    point = random.randint(0, len(digits))
    before, after = digits[:point] or b"0", digits[point:]
    return before + b"." + after if after else before


def whole(random: Random, odd: float, limit: int) -> bytes:
    """Write an integer, mostly below *limit*."""
    chance = random.random()
    if chance < odd / 2:
        return random.choice(ODD_NUMBERS)
    if chance < odd:
        return b"%d" % (random.choice(EDGES) + random.randint(-1, 1))
    if chance < odd + 0.1:
        return b"%d" % (limit - random.choice((1, 1, 2, limit - 1, limit)))
    if chance < odd + 0.105:
        return b"%d" % (limit + random.choice((0, 1)))
    return b"%d" % random.randrange(10 ** random.randint(1, len(str(limit)) - 1))


def text(random: Random, odd: float) -> bytes:
    """Write a string, of any length about a word's."""
    if random.random() < 0.5:
        plain = random.choice(KNOWN_TEXTS)
    else:
        plain = bytes(random.choices(PLAIN, k=random.choice((*range(20), 70))))
    if random.random() < odd:
        place = random.randint(0, len(plain))
        plain = plain[:place] + random.choice(ODD_TEXTS) + plain[place:]
    return b'"%b"' % plain


# ── what becomes of a frame ───────────────────────────────────────────────────────────


def mutated(random: Random, frames: Sequence[bytes]) -> bytes:
    """Take one of *frames* and spoil it in a place or a few."""
    frame = bytearray(random.choice(frames))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        spoil(random, frame, frames)
    return bytes(frame)


def spoil(random: Random, frame: bytearray, frames: Sequence[bytes]) -> None:
    place = random.randint(0, max(len(frame) - 1, 0))
    behind = place + random.choice((1, 1, 2, 5, 20))
    match random.randrange(10):
        case 0:
            frame[place:behind] = b""
        case 1:
            frame[place:place] = random.choices(SPICE, k=random.choice((1, 2, 9)))
        case 2:
            frame[place:place] = frame[place:behind]
        case 3:
            other = random.choice(frames)
            start = random.randrange(len(other))
            frame[place:behind] = other[start : start + random.choice((1, 8, 60))]
        case 4:
            frame[place:] = random.choice(frames)[place:]
        case 5:
            del frame[place:]
        case 6 | 7 if spans := [found.span() for found in NUMBER.finditer(frame)]:
            start, end = random.choice(spans)
            frame[start:end] = random.choice((decimal(random, 16), decimal(random, 6)))
        case 8:
            frame[place : place + 1] = bytes([random.choice(SPICE)])
        case _ if frame:
            frame[place] ^= 1 << random.randrange(8)


def truncated(frame: bytes) -> Iterator[bytes]:
    """Give a frame cut off before each of its bytes, as it is and with a last brace."""
    for size in range(len(frame)):
        yield frame[:size]
        yield frame[:size] + b"}"
