"""Ten thousand headers that are almost right, and no reader harmed."""

import subprocess
import sys
import textwrap

import pytest

SCRIPT = """
    import os, random, struct, sys
    from feedhandler import shm
    from feedhandler.errors import RingError
    from feedhandler.records import QUOTE
    from feedhandler.ring import Reader, Ring

    # Offset and size of the fields of the meta page, and of the head in the live page.
    FIELDS = [
        (0x00, 8), (0x08, 2), (0x0A, 2), (0x0C, 4), (0x10, 4), (0x14, 4), (0x18, 8),
        (0x20, 8), (0x28, 4), (0x2C, 4), (0x30, 8), (0x38, 8), (0x40, 8), (0x48, 4),
        (0x4C, 4), (0x50, 8), (0x58, 8), (0x60, 4), (0x64, 4), (0x68, 8), (0x70, 8),
        (0x78, 8), (0x80, 8), (0xC0, 8), (0x100, 8), (0x200, 8), (0x210, 4),
        (0x1000, 8), (0x1080, 4), (0x1088, 8),
    ]
    NUMBERS = [0, 1, 2, 3, 7, 8, 63, 64, 65, 72, 96, 127, 128, 192, 256, 320, 512, 2048,
               3584, 3585, 4095, 4096, 4097, 4160, 8191, 8192, 8256, 12288, 1 << 16,
               1 << 20, 1 << 28, 1 << 29, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 52,
               (1 << 58) + 64, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1]

    random.seed(int(sys.argv[2]))
    path = os.path.join(sys.argv[1], "fh-md.quotes")
    size = Ring.size_for(QUOTE, 256)
    whole = bytearray(size)
    ring = Ring(whole, QUOTE, 256)
    for number in range(300):
        ring.publish_record(bytes(64))
    ring.release()
    good = bytes(whole)[:0x2000]
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.pwrite(fd, whole, 0)

    def change(header):
        offset, width = random.choice(FIELDS)
        value = int.from_bytes(header[offset:offset + width], "little")
        kind = random.random()
        if kind < 0.6:
            value = random.choice(NUMBERS)
        elif kind < 0.8:
            value ^= 1 << random.randrange(8 * width)
        elif kind < 0.9:
            value += random.choice([-64, -8, -1, 1, 8, 64])
        else:
            value = random.getrandbits(8 * width)
        header[offset:offset + width] = (value % (1 << 8 * width)).to_bytes(
            width, "little")

    def use(segment):
        for start in ("new", "oldest", 0):
            reader = Reader(segment.buffer, start=start)
            for _ in range(2):
                reader.poll(1000)
                reader.take_one()
            reader.has_next()
            assert reader.received + reader.lost == reader.position - reader.start
            reader.release()
        segment.status()
        segment.live()

    accepted = refused = 0
    count = int(sys.argv[3])
    for number in range(count):
        header = bytearray(good)
        length = size
        if number % 20 < 19:
            for _ in range(random.randint(1, 3)):
                change(header)
        elif number % 40 == 19:
            header[random.choice([0, 8]):0x200] = random.randbytes(0x200)
            del header[0x2000:]
        else:
            length = random.choice([0, 1, 8, 4095, 4096, 8191, 8192, 12288, size - 1])
        os.ftruncate(fd, size)
        os.pwrite(fd, header, 0)
        if length != size:
            os.ftruncate(fd, length)
        try:
            with shm.attach("md", "quotes", directory=sys.argv[1]) as segment:
                use(segment)
            accepted += 1
        except RingError:
            refused += 1
        except Exception:
            print(number, header[:0x80].hex(), file=sys.stderr)
            raise
        if length != size:
            os.pwrite(fd, whole, 0)
    print(accepted, refused)
"""


def fuzz(directory, seed: int, count: int) -> tuple[int, int]:
    """Attach to *count* headers, of which 19 in 20 have one to three fields changed."""
    answer = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(SCRIPT),
         str(directory), str(seed), str(count)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (answer.returncode, answer.stderr) == (0, "")
    accepted, refused = map(int, answer.stdout.split())
    print(f"\n{count} headers: {accepted} accepted, {refused} refused")
    return accepted, refused


@pytest.mark.req("F-84", "SEC-19")
def test_ten_thousand_headers_that_are_almost_right_are_used_or_refused(tmp_path):
    accepted, refused = fuzz(tmp_path, 11, 10_000)

    assert accepted + refused == 10_000
    assert accepted > 1000
    assert refused > 2500
