"""venue.toml: defaults, and what is said about a mistake."""

import msgspec
import pytest

from feedhandler.errors import ConfigError
from feedhandler.venue.config import VenueConfig, load


def written(tmp_path, text):
    path = tmp_path / "venue.toml"
    path.write_text(text)
    return path


def test_an_empty_file_gives_the_defaults(tmp_path):
    config = load(written(tmp_path, ""))

    assert config == VenueConfig()
    assert (config.host, config.port, config.heartbeat_s) == ("127.0.0.1", 8765, 30)
    assert [s.name for s in config.symbols] == ["AAPL", "MSFT", "BTC-USD", "ETH-USD"]
    assert config.limits.subscriptions == 50
    assert config.replay is None


def test_a_full_file_is_read(tmp_path):
    config = load(
        written(
            tmp_path,
            """
            port = 0
            heartbeat_s = 0.5
            [traders]
            seed = 7
            rate = 50
            [limits]
            subscribe_per_minute = 5
            [[symbols]]
            name = "XYZ"
            tick = "0.05"
            previous_close = 12.5
            [replay]
            path = "day.jsonl.gz"
            speed = "max"
            loop = true
            """,
        )
    )

    assert config.symbols[0].tick == "0.05"
    assert (config.traders.seed, config.traders.rate) == (7, 50.0)
    assert config.limits.subscribe_per_minute == 5
    assert (config.replay.speed, config.replay.loop) == ("max", True)


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        ("prot = 1", "prot", "prot: unknown key; expected host"),
        ("[limits]\nsubs = 1", "limits.subs", "unknown key; expected subscriptions"),
        ("port = 'x'", "port", "port: expected int"),
        ("port = 70000", "port", "port: expected int <= 65535"),
        ("heartbeat_s = 0", "heartbeat_s", ">= 0.001"),
        ("[replay]\nspeed = 1.0", "replay.path", "replay.path: missing"),
        ("[replay]\npath = 'x'\nspeed = 'fast'", "replay.speed", "replay.speed"),
        ("symbols = []", None, "symbols is empty"),
        ("[[symbols]]\nname = 'a/b'\nprevious_close = 1.0", "symbols[0]", "'a/b'"),
        (
            "[[symbols]]\nname = 'A'\nprevious_close = 1.0\ntick = '0'",
            "symbols[0]",
            "tick is '0'",
        ),
    ],
)
def test_a_mistake_is_named_with_its_key(tmp_path, text, key, says):
    with pytest.raises(ConfigError, match=r"venue\.toml") as caught:
        load(written(tmp_path, text))

    assert caught.value.key == key
    assert says in str(caught.value)


def test_a_file_that_is_not_toml_or_not_there_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="not TOML"):
        load(written(tmp_path, "port ="))
    with pytest.raises(ConfigError, match=r"nowhere\.toml: no such file"):
        load(tmp_path / "nowhere.toml")


@pytest.mark.req("SEC-02")
def test_plaintext_off_loopback_needs_the_flag(tmp_path):
    with pytest.raises(ConfigError, match="allow_plaintext"):
        load(written(tmp_path, "host = '0.0.0.0'"))

    assert load(written(tmp_path, "host = '0.0.0.0'\nallow_plaintext = true"))


def test_a_configuration_cannot_be_changed():
    with pytest.raises(AttributeError):
        VenueConfig().port = 1
    assert msgspec.structs.replace(VenueConfig(), port=1).port == 1
