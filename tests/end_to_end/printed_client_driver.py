"""Run the printed Python client: calls come as JSON lines, events go out as such.

Its authentication waits on the thread that would read the answer, so it would never
come; here it has a thread of its own. Nothing else is changed.
"""

import importlib.util
import json
import sys
import threading
from typing import Any

TYPES = ("trade", "orderbook", "orderbook_update", "order_update", "user_trade")

# The client's own words go to stderr: stdout is ours.
OUT, sys.stdout = sys.stdout, sys.stderr
TELLING = threading.Lock()


def tell(event: str, **fields: Any) -> None:
    with TELLING:
        print(json.dumps({"event": event, **fields}), file=OUT, flush=True)


def load(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("printed_client", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.TradingPlatformClient


class Connections(dict):
    def __setitem__(self, endpoint: str, socket: Any) -> None:
        super().__setitem__(endpoint, socket)
        tell("connected", endpoint=endpoint)


def main(path: str, base_url: str, api_key: str, api_secret: str) -> None:
    printed = load(path)

    class Client(printed):
        def authenticate(self, endpoint: str) -> None:
            threading.Thread(target=self._prove, args=(endpoint,), daemon=True).start()

        def _prove(self, endpoint: str) -> None:
            try:
                super().authenticate(endpoint)
                tell("authenticated", endpoint=endpoint)
            except Exception as error:
                tell("refused", endpoint=endpoint, message=str(error))

    options = {
        "base_url": base_url,
        "reconnect": True,
        "max_reconnect_attempts": 10,
        "reconnect_interval": 1000,
    }
    client = Client(api_key, api_secret, options)
    client.connections = Connections()
    for kind in TYPES:
        client.on_message(kind, lambda message: tell("message", message=message))
    for line in sys.stdin:
        call = json.loads(line)
        method = call["method"]
        try:
            tell(
                "returned", method=method, result=getattr(client, method)(*call["args"])
            )
        except Exception as error:
            tell("raised", method=method, message=str(error))


main(*sys.argv[1:])
