"""What instructions.py counts: ``python -m benchmarks.counted CODEC``.

On stdin are messages, one a line, and between those of two sessions an empty line. Only
what is in Tracker.feed is counted: not the start, and not the loop that calls it.
"""

import gc
import sys

from benchmarks import harness


def main(codec: str) -> None:
    loops = harness.built_loops()
    parts = [part.split(b"\n") for part in sys.stdin.buffer.read().split(b"\n\n")]
    make = harness.CODECS[codec]
    # When the collector runs depends on all that was made before, not on the messages.
    gc.disable()
    # First for nothing: an allocator that has seen such messages does always the same.
    for counts in (False, True):
        sessions = [harness.session_of(harness.channels_in(p), make()) for p in parts]
        if counts:
            loops.start_counting()
        for session, frames in zip(sessions, parts, strict=True):
            loops.time_feed(session, frames)
            assert all(book.is_live for book in session.books())


if __name__ == "__main__":
    main(sys.argv[1])
