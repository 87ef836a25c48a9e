"""A process that is fed: ``python -m benchmarks.fed CODEC MESSAGES``.

A thousand books of depth 100, and a recording with all that a venue sends, lap by lap
in process. It says *memory BYTES* ten times, after each tenth of the messages: what is
resident, with the rings in it.
"""

import gc
import os
import sys

from benchmarks import harness, updates
from benchmarks.replayed import channels_of
from benchmarks.told import say

SYMBOLS = 1_000
DEPTH = 100
MOST_IN_A_LAP = 100_000
LOOKS = 10


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(codec: str, messages: int) -> None:
    channels = channels_of(SYMBOLS, DEPTH)
    count = min(messages // LOOKS, MOST_IN_A_LAP)
    stream = updates.stream([DEPTH] * SYMBOLS, "mixed", count)
    recorded = harness.frames(next(iter(harness.recordings().values())))
    lap = (
        updates.first_frames(stream, channels)
        + updates.frames(stream, channels)
        + recorded[:count]
    )
    del stream
    wanted = [*channels, *harness.channels_in(recorded)]
    session = harness.session_of(wanted, harness.CODECS[codec]())
    loops = harness.loops()
    # The rings are as large as they are: all of their pages are there from the start.
    for ring in (session.sink.quotes, session.sink.trades):
        loops.time_publish(ring, harness.CAPACITY)
    gc.collect()
    # Twice: a book's second snapshot is built beside the first, in memory that is kept.
    for _ in range(2):
        loops.time_feed(session, lap)
        session.take_events()
    fed = 0
    for look in range(1, LOOKS + 1):
        while fed < messages * look // LOOKS:
            loops.time_feed(session, lap)
            fed += len(lap)
            # As the host of a session does.
            session.take_events()
            session.take_outbox()
            session.take_messages()
        say("memory", resident_bytes())
    assert all(session.routes[channel].book.is_live for channel in channels)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
