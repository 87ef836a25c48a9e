"""Every example of the API reference, read and written again."""

import json
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from feedhandler.protocol import messages

GOLDEN = Path(__file__).parent / "golden"
SERVER = sorted((GOLDEN / "server").glob("*.json"))
CLIENT = sorted((GOLDEN / "client").glob("*.json"))
SERVER_DECODER = msgspec.json.Decoder(messages.ServerMessage)
CLIENT_DECODER = msgspec.json.Decoder(messages.ClientMessage)

REQUIREMENTS = {
    "subscription_response": "SB-02", "trade": "TR-02",
    "orderbook": "OB-03", "orderbook_update": "OB-06", "ticker": "TK-02",
    "candle": "CD-09", "order_update": "UO-02", "user_trade": "UT-02",
    "account_update": "AC-02", "system_notification": "SN-01",
    "user_notification": "UN-01", "custom_alert": "CA-02", "error": "ER-01",
    "order_response": "OR-02", "subscribe": "SB-01", "submit_order": "OR-01",
    "cancel_order": "OR-13", "modify_order": "OR-15", "batch_orders": "OR-16",
}  # fmt: skip


def examples(paths: list[Path]) -> list[Any]:
    return [
        pytest.param(
            path,
            id=path.stem,
            marks=pytest.mark.req(REQUIREMENTS[path.stem.partition("-")[0]]),
        )
        for path in paths
    ]


def test_there_is_an_example_of_nearly_every_message():
    shown = {path.stem.partition("-")[0] for path in SERVER}
    known = {kind.__struct_config__.tag for kind in get_args(messages.ServerMessage)}
    said = {path.stem.partition("-")[0] for path in CLIENT}
    ours = {kind.__struct_config__.tag for kind in get_args(messages.ClientMessage)}

    assert known - shown == {"heartbeat", "auth_response", "batch_response"}
    assert ours - said == {"pong", "authenticate", "unsubscribe"}
    assert shown <= known
    assert said <= ours
    assert REQUIREMENTS.keys() == shown | said


@pytest.mark.parametrize("path", examples(SERVER))
@pytest.mark.req("MF-05", "MF-06")
def test_a_message_of_the_venue_comes_out_as_it_went_in(path: Path):
    text = path.read_bytes()
    message = SERVER_DECODER.decode(text)

    assert json.loads(msgspec.json.encode(message)) == json.loads(text)


@pytest.mark.parametrize("path", examples(CLIENT))
@pytest.mark.req("MF-02", "MF-04")
def test_a_message_of_the_client_comes_out_as_it_went_in(path: Path):
    text = path.read_bytes()
    message = CLIENT_DECODER.decode(text)

    assert json.loads(msgspec.json.encode(message)) == json.loads(text)


@pytest.mark.req("AU-02", "AU-03")
def test_authenticate_has_key_signature_and_integer_time():
    data = {"api_key": "k", "signature": "s", "timestamp": 1625097600000}
    text = json.dumps({"action": "authenticate", "data": data}).encode()
    message = CLIENT_DECODER.decode(text)

    assert json.loads(msgspec.json.encode(message))["data"] == data
    for wrong in (1625097600000.5, "1625097600000", None):
        with pytest.raises(msgspec.ValidationError):
            CLIENT_DECODER.decode(
                json.dumps(
                    {"action": "authenticate", "data": {**data, "timestamp": wrong}}
                )
            )


@pytest.mark.req("A-01", "AU-06", "AU-07")
@pytest.mark.parametrize(
    "answer",
    [
        {"status": "success"},
        {"data": {"status": "success"}},
        {"status": "error", "message": "no", "data": {"message": "no"}, "id": "a"},
    ],
)
def test_either_form_of_an_auth_response_is_read(answer: dict[str, Any]):
    answer = {"type": "auth_response", **answer, "timestamp": 1}
    message = SERVER_DECODER.decode(json.dumps(answer))

    assert json.loads(msgspec.json.encode(message)) == answer


@pytest.mark.req("A-09", "HB-02")
def test_a_heartbeat_needs_nothing_but_its_type():
    for extra in ({}, {"data": {}}, {"data": {"interval": 30000}, "timestamp": 1}):
        message = SERVER_DECODER.decode(json.dumps({"type": "heartbeat", **extra}))

        assert isinstance(message, messages.Heartbeat)


@pytest.mark.req("HB-03")
def test_a_pong_is_as_the_reference_shows_it():
    pong = messages.Pong(messages.PongData(1625097600000))

    assert json.loads(msgspec.json.encode(pong)) == {
        "action": "pong",
        "data": {"timestamp": 1625097600000},
    }


@pytest.mark.req("A-30", "OR-01")
@pytest.mark.parametrize("path", [GOLDEN / "client" / "submit_order.json"])
def test_a_misspelt_field_of_an_order_is_refused(path: Path):
    order = json.loads(path.read_bytes())
    order["data"]["stop_prize"] = 1

    with pytest.raises(msgspec.ValidationError, match="stop_prize"):
        CLIENT_DECODER.decode(json.dumps(order))


@pytest.mark.req("LM-07")
def test_a_rate_limit_says_how_long_to_wait():
    text = (GOLDEN / "server" / "error-2.json").read_bytes()

    assert SERVER_DECODER.decode(text).data.retry_after == 30
