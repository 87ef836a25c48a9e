"""A peer that answers at once: ``python -m benchmarks.canned PROCESSOR``.

It prints its URL. At ``/ws/trading`` it takes any login and subscription, and answers
every order with the same acknowledgement, but for the ids; anywhere else it sends each
message back as it came.
"""

import asyncio
import os
import sys

import msgspec
import uvloop
from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    ws_create_server,
)

LOGIN = b'{"type":"auth_response","status":"success","data":{"status":"success"},'
CONFIRM = b'{"type":"subscription_response","data":{"status":"success","channels":[]},'
ACK = (
    b'{"type":"order_response","data":{"status":"accepted","order_id":"%s",'
    b'"client_id":"c-1","symbol":"AAPL","side":"buy","type":"limit","quantity":100,'
    b'"price":150.0,"time_in_force":"gtc"},"timestamp":1,"id":"%s"}'
)
ORDER = b'{"action":"submit_order"'
ID = b'"id":"'


class Request(msgspec.Struct):
    action: str
    id: str | None = None


decode = msgspec.json.Decoder(Request).decode


class Trading(WSListener):
    """Says yes to everything."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type != WSMsgType.TEXT:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.disconnect()
            return
        payload = frame.get_payload_as_bytes()
        if payload.startswith(ORDER):
            # Whichever way round the client puts them, the id is a text of its own.
            start = payload.rindex(ID) + len(ID)
            name = payload[start : payload.index(b'"', start)]
            transport.send(WSMsgType.TEXT, ACK % (name, name))
            return
        request = decode(payload)
        if request.action in ("authenticate", "subscribe", "unsubscribe"):
            kind = LOGIN if request.action == "authenticate" else CONFIRM
            name = (request.id or "").encode()
            transport.send(
                WSMsgType.TEXT, kind + b'"timestamp":1,"id":"' + name + b'"}'
            )


class Echo(WSListener):
    """Sends everything back."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_bytes())


def listener(request: WSUpgradeRequest) -> WSListener:
    return Trading() if request.path == b"/ws/trading" else Echo()


async def main() -> None:
    server = await ws_create_server(listener, "127.0.0.1", 0, enable_auto_pong=True)
    port = server.sockets[0].getsockname()[1]
    print(f"ws://127.0.0.1:{port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[1])})
    uvloop.run(main())
