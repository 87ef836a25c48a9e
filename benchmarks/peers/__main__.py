"""One peer on one connection: ``python -m benchmarks.peers NAME PORT COUNT CHANNEL…``.

Takes COUNT messages as its user would, on the last processor, and says when it had the
last one, what of a processor they took, and what the best levels are at the end.
"""

import json
import os
import sys

import uvloop

from benchmarks.peers import Instrument, Watch
from benchmarks.peers.roster import PEERS


def main() -> None:
    name, port, count, *channels = sys.argv[1:]
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    peer, watch = PEERS[name], Watch()
    instruments = [Instrument(channel.split(":")[1], channel) for channel in channels]
    request = json.dumps({"action": "subscribe", "id": "1", "channels": channels})
    handle = peer.handle(instruments)
    best = uvloop.run(
        peer.load().follow(f"ws://127.0.0.1:{port}", request, handle, int(count), watch)
    )
    print("done", watch.done_ns, watch.user_ns, watch.kernel_ns)
    print(json.dumps(best))


if __name__ == "__main__":
    main()
