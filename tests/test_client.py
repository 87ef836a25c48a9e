"""TradingClient and its feed without a venue: who starts, stops, and hears."""

import asyncio
from typing import Any

import pytest

from feedhandler import FeedHandler, TradingClient
from feedhandler.authentication import shared_key
from feedhandler.config import Credentials, FeedConfig, Shm
from feedhandler.errors import ConfigError
from feedhandler.secret import Secret

KEY = {"credentials": Credentials(api_key="key-0001"), "shm": Shm(name="")}


def test_a_feed_that_could_not_start_gives_its_connections_back():
    url = "wss://127.0.0.1:1"
    key = shared_key(url, "key-0001", Secret("s"))
    config = FeedConfig(url=url, ca_file="/nowhere", **KEY)  # type: ignore[arg-type]

    async def act() -> None:
        with pytest.raises(ConfigError, match="ca_file"):
            await FeedHandler(config, secret=Secret("s")).start()

    for _ in range(6):
        asyncio.run(act())
    for _ in range(5):
        key.reserve()


def test_a_feed_that_two_stop_at_once_is_stopped_once():
    async def act() -> None:
        config = FeedConfig(url="ws://127.0.0.1:1", **KEY)  # type: ignore[arg-type]
        feed = FeedHandler(config, secret=Secret("s"))
        await feed.start()
        await asyncio.gather(feed.stop(), feed.stop())
        assert not feed.is_running
        await feed.start()
        await feed.stop()

    asyncio.run(act())


def test_a_client_that_was_closed_and_connects_again_hears_again():
    async def act() -> None:
        heard: list[Any] = []
        client = TradingClient.open("ws://127.0.0.1:1", "key-0002", "s")
        client.on_message("user_trade", heard.append)
        for _ in range(2):
            await client.connect()
            assert client.feed._listeners == [client._deliver]
            await client.close()

    asyncio.run(act())


def test_a_handler_that_raises_takes_nothing_from_the_next_one():
    heard: list[Any] = []

    def breaks(message: Any) -> None:
        raise ValueError("of the first")

    client = TradingClient.open("ws://127.0.0.1:1", "key-0002", "s")
    client.on_message("user_trade", breaks)
    client.on_message("user_trade", heard.append)
    with pytest.raises(ValueError, match="of the first"):
        client._hand("user_trade", 7)

    assert heard == [7]
