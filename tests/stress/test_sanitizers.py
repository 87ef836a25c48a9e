"""The ring's C under the compiler's own detectors, and as another processor gets it."""

import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import numpy as np
import pytest

import feedhandler
from feedhandler.records import QUOTE
from feedhandler.ring import Ring

HERE = Path(__file__).parent
EMBED = HERE.parent / "embed"
ATOMIC = HERE.parents[1] / "feedhandler" / "atomic.pxd"
CROSS = "aarch64-linux-gnu-gcc"

pytestmark = pytest.mark.stress


@pytest.fixture
def atomic(tmp_path) -> Path:
    """A folder with atomic.h, the C of atomic.pxd."""
    blocks = re.findall(r'    """\n(.*?)\n    """', ATOMIC.read_text(), re.DOTALL)
    (tmp_path / "atomic.h").write_text(textwrap.dedent(blocks[0]))
    return tmp_path


def compile_with(*flags: str | Path, compiler: str = "gcc") -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    done = subprocess.run(
        [compiler, *flags], capture_output=True, text=True, check=False
    )
    if "cannot find" in done.stderr and "san" in done.stderr:
        pytest.skip("this compiler has no sanitizer libraries")
    assert done.returncode == 0, done.stderr


def detect_races(folder: Path, *flags: str) -> subprocess.CompletedProcess:
    """Run race.c under the thread sanitizer.

    Without -fno-builtin a memcpy is inlined, unseen by the sanitizer.
    """
    compile_with(
        "-O1", "-g", "-std=gnu11", "-pthread", "-fsanitize=thread", "-Wno-tsan",
        "-fno-builtin", *flags, f"-I{folder}", HERE / "race.c", "-o", folder / "race",
    )  # fmt: skip
    return subprocess.run(
        # Where addresses are laid out too randomly, it cannot map its shadow.
        ["setarch", "-R", folder / "race"],
        capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "TSAN_OPTIONS": "halt_on_error=0 exitcode=66"},
    )  # fmt: skip


@pytest.mark.req("F-79")
def test_the_protocol_has_no_data_race(atomic):
    done = detect_races(atomic)
    accepted, torn = map(int, done.stdout.split())
    print(f"\n{accepted} records accepted, {torn} torn, no race reported")

    assert (done.returncode, done.stderr) == (0, "")
    assert accepted > 100
    assert torn == 0


def test_a_payload_copied_by_memcpy_is_reported_as_a_race(atomic):
    done = detect_races(atomic, "-DFH_MEMCPY")

    assert done.returncode == 66
    assert "data race" in done.stderr
    assert "memcpy" in done.stderr


@pytest.mark.req("F-84", "SEC-19")
def test_no_header_makes_the_c_reader_leave_its_memory(tmp_path):
    """Two thousand segments, most of them almost right, under both sanitizers."""
    program = tmp_path / "consumer"
    compile_with(
        "-O1", "-g", "-std=c11", "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all", f"-I{feedhandler.get_include()}",
        EMBED / "consumer.c", "-o", program,
    )  # fmt: skip
    random = np.random.default_rng(7)
    raw = bytearray(Ring.size_for(QUOTE, 64))
    ring = Ring(raw, QUOTE, 64)
    ring.publish_records(np.zeros(100, QUOTE))
    ring.release()
    path = tmp_path / "fh-md.quotes"
    codes = {0: 0, 1: 0}
    for _ in range(2000):
        spoilt = bytearray(raw)
        for _ in range(random.integers(1, 4)):
            place = int(random.choice([random.integers(0x80), random.integers(0x1100)]))
            spoilt[place] = int(random.choice([0, 1, 0x40, 0x80, 0xFF]))
        size = len(spoilt) if random.random() < 0.9 else int(random.integers(len(raw)))
        path.write_bytes(spoilt[:size])
        path.chmod(0o600)
        for mode in ("next", "poll"):
            done = subprocess.run(
                [program, "md", "200", tmp_path, "oldest", "half", mode],
                capture_output=True, text=True, check=False, timeout=30,
            )  # fmt: skip
            assert done.returncode in codes, done.stderr
            codes[done.returncode] += 1
    print(f"\n{codes[0]} accepted, {codes[1]} refused, no report")

    assert min(codes.values()) > 200


def test_another_processor_gets_its_barriers(atomic):
    """Release stores, a fence after the mark, and one before the second look."""
    source = atomic / "steps.c"
    source.write_text(
        textwrap.dedent(
            """
            #include "atomic.h"

            void publish(uint64_t *slot, const uint64_t *own, uint64_t number)
            {
                fh_store_release(slot, (1ULL << 63) | number);
                fh_fence_release();
                fh_store_words(slot + 1, own, 7);
                fh_store_release(slot, number);
            }

            int take(const uint64_t *slot, uint64_t *own, uint64_t number)
            {
                if (fh_load_acquire(slot) != number)
                    return 0;
                fh_load_words(own, slot + 1, 7);
                fh_fence_acquire();
                return fh_load_relaxed(slot) == number;
            }
            """
        )
    )
    assembly = atomic / "steps.s"
    compile_with(
        "-O2", "-std=gnu11", "-S", f"-I{atomic}", source, "-o", assembly, compiler=CROSS
    )
    publish, take = re.split(r"^take:", assembly.read_text(), flags=re.MULTILINE)
    words = r"(?:.*\n)*?.*"

    assert re.search(
        rf"\bstlr\b{words}\bdmb\s+ish\b{words}\bstr\b{words}\bstlr\b", publish
    )
    assert re.search(
        rf"\bldar\b{words}\bldr\b{words}\bdmb\s+ishld\b{words}\bldr\b", take
    )
