"""The client's configuration: defaults, and errors that name the key."""

import json
import tomllib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler import config
from feedhandler.config import Credentials, FeedConfig, Instrument, Limits, Shm
from feedhandler.errors import ConfigError
from feedhandler.protocol.channels import MARKET_DATA
from tests.secrets_scan import pretty


def test_the_defaults_are_these():
    feed = FeedConfig()

    assert feed.url_of(MARKET_DATA) == (
        "wss://api.tradingplatform.example.com/ws/market-data"
    )
    assert (feed.publish, feed.resync_interval, feed.audit_log) == ("every", 0.0, "")
    assert (feed.shm.name, feed.shm.capacity, feed.shm.mode) == ("md", 131_072, 0o600)
    assert (feed.shm.board_levels, feed.shm.instruments) == (10, 1024)
    assert feed.shm.wake is False
    assert feed.limits.max_message_bytes == 4 << 20
    assert feed.limits.reconnect_attempts == 10
    assert (feed.loop.mode, feed.loop.cpu) == ("block", -1)
    assert Instrument(symbol="AAPL").channel_names() == [
        "orderbook:AAPL:10",
        "trades:AAPL",
    ]


@pytest.mark.req("EP-08")
def test_a_file_says_everything():
    feed = config.parse(
        'url = "ws://127.0.0.1:8765/"\npublish = "changes"\n'
        '[shm]\nname = "x"\nmode = 0o640\n'
        '[[instruments]]\nsymbol = "AAPL"\ndepth = 5\n'
        'channels = ["candles", "orderbook", "ticker"]\nintervals = ["1m", "1w"]\n'
    )

    assert feed.url_of(MARKET_DATA) == "ws://127.0.0.1:8765/ws/market-data"
    assert feed.shm.mode == 0o640
    assert feed.instruments[0].channel_names() == [
        "candles:AAPL:1m",
        "candles:AAPL:1w",
        "orderbook:AAPL:5",
        "ticker:AAPL",
    ]
    assert config.build(config.as_values(feed)) == feed


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("nonsense = 1", "nonsense", "unknown key; expected url, ca_file, cred"),
        ("[shm]\nnam = 'x'", "shm.nam", "unknown key; expected name, capacity"),
        ("[[instruments]]\nsymbol = 'A'\ndepht = 3", "instruments[0].depht", "depth"),
        ("[[instruments]]\ndepth = 3", "instruments[0].symbol", "missing"),
        ("[shm]\ncapacity = 'x'", "shm.capacity", "expected int, got str"),
        ("[shm]\nmode = 0o644", "shm.mode", "expected one of 0o600, 0o640"),
        ("publish = 'all'", "publish", "expected one of 'every', 'changes', "),
        ("resync_interval = inf", "resync_interval", "<= "),
        ("resync_interval = nan", "resync_interval", ">= 0"),
        ("[limits]\nreconnect_base_s = inf", "limits.reconnect_base_s", "<= "),
        ("[limits]\nsubscribe_per_minute = 1", "limits.subscribe_per_minute", ">= 2"),
        ("[loop]\nmode = 'sleep'", "loop.mode", "expected one of 'block', 'spin'"),
        ("[[instruments]]\nsymbol = 'aapl'", "instruments[0]", "A-Z 0-9"),
        ("[[instruments]]\nsymbol = '../x'", "instruments[0]", "'../x'"),
        ("[[instruments]]\nsymbol = 'A'\ndepth = 0", "instruments[0].depth", ">= 1"),
        ("[[instruments]]\nsymbol = 'A'\nintervals = ['2m']", "instruments[0]", "'2m'"),
        (
            "[[instruments]]\nsymbol = 'A'\nchannels = []",
            "instruments[0]",
            "no channels",
        ),
    ],
)
def test_a_mistake_names_its_key_and_what_was_expected(text, key, words):
    with pytest.raises(ConfigError) as raised:
        config.parse(text)

    assert raised.value.key == key
    assert key in str(raised.value)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[shm]\ncapacity = 100", "power of two"),
        ("[shm]\ncapacity = 32", "from 64"),
        ("[shm]\nprivate_capacity = 100", "private_capacity 100 is not a power of two"),
        ("url = 'http://x'", "ws://"),
        ("url = 'ws://'", "ws://"),
        ("url = 'ws://10.0.0.1'", "plaintext"),
        ("url = 'ws://127.evil.example'", "plaintext"),
        ("url = 'ws://user@evil.example'", "has a user"),
        ("url = 'wss://user:password@venue.example'", "//\\*\\*\\*@venue.example"),
        ("url = 'ws://evil.example?@localhost'", "ws://"),
        ("url = 'ws://evil.example#@localhost'", "ws://"),
        ("url = 'ws://evil.example\\\\@localhost'", "ws://"),
        ("url = 'wss://x.example?key=1'", "ws://"),
        ("url = 'wss://x.example:99999'", "ws://"),
        ("url = 'wss://x.example:port'", "ws://"),
        ("url = 'ws://[::1'", "ws://"),
        ("x =", "not TOML"),
        ("[[instruments]]\nsymbol = 'A'\n[[instruments]]\nsymbol = 'A'", "twice"),
        ("[limits]\nconnections = 1\nsubscriptions_per_connection = 1\n"
         "[[instruments]]\nsymbol = 'A'", "do not fit"),
    ],
)  # fmt: skip
def test_what_types_cannot_say_is_checked_too(text, words):
    with pytest.raises(ConfigError, match=words):
        config.parse(text)


@pytest.mark.req("SEC-01")
@pytest.mark.parametrize(
    "url",
    [
        "ws://localhost:1", "ws://127.0.0.1", "ws://127.1.2.3:80/base", "ws://[::1]:8765",
        "ws://LOCALHOST", "wss://x.example", "wss://x.example:443/base/",
    ],
)  # fmt: skip
def test_plaintext_is_for_this_machine_only(url: str):
    assert config.build({"url": url}).url == url


def test_plaintext_elsewhere_must_be_asked_for():
    feed = config.build({"url": "ws://10.0.0.1", "allow_plaintext": True})

    assert feed.allow_plaintext


@given(
    st.builds(
        FeedConfig,
        ca_file=st.text(),
        credentials=st.builds(Credentials, api_key=st.text(), secret_file=st.text()),
        shm=st.builds(Shm, name=st.text(), mode=st.sampled_from([0o600, 0o640])),
        limits=st.builds(Limits, connect_timeout_s=st.floats(0, 86_400)),
        instruments=st.sampled_from([(), (Instrument(symbol="A"),)]),
    )
)
def test_what_is_written_as_toml_says_the_same(feed: FeedConfig):
    assert config.parse(config.as_toml(feed)) == feed


def test_every_key_is_written():
    feed = FeedConfig(instruments=(Instrument(symbol="A"), Instrument(symbol="B")))

    assert tomllib.loads(config.as_toml(feed)) == json.loads(msgspec.json.encode(feed))


@pytest.mark.req("SEC-05")
def test_a_configuration_shows_the_beginning_of_its_key():
    feed = FeedConfig(credentials=Credentials(api_key="0123456789", secret_file="f"))

    for shown in (repr(feed), str(feed.credentials), pretty(feed)):
        assert "0123…" in shown
        assert "012345" not in shown


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        config.load(str(tmp_path / "absent.toml"))
    with pytest.raises(ConfigError, match="is a directory"):
        config.load(str(tmp_path))
