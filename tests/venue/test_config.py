"""venue.toml: defaults, and what is said about a mistake."""

from decimal import Decimal

import msgspec
import pytest

from feedhandler.errors import ConfigError
from feedhandler.venue.config import VenueConfig, build, load
from feedhandler.venue.server import Venue


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


# ── what would fail later ─────────────────────────────────────────────────────────────


def an_account(**fields):
    return {"accounts": [{"id": "a", "api_key": "k", "secret": "s", **fields}]}


def holding(**position):
    return an_account(positions={"AAPL": {"quantity": 1, **position}})


def a_symbol(**fields):
    return {"symbols": [{"name": "A", "previous_close": 1.0, **fields}]}


def an_alert(threshold=1, count=1):
    alert = {
        "id": "x", "name": "n", "condition": "price_above", "symbol": "AAPL",
        "threshold": threshold,
    }  # fmt: skip
    return an_account(alerts=[alert] * count)


def a_fault(kind, channel):
    return {"testing": True, "faults": [{"kind": kind, "channel": channel}]}


def hours(**fields):
    return {"calendar": {"opens": "09:00", "closes": "17:00", **fields}}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (an_account(id="house"), "'house' is open already"),
        (a_symbol(maker_fee="1"), "maker_fee of A is 1, "),
        (a_symbol(taker_fee="abc"), "fee of taker is 'abc'"),
        (a_symbol(quote="USD", base="USD"), "base of A is USD, its quote"),
        (a_symbol(tick="1e-12", previous_close=61_800.0), "previous_close of A "),
        (an_account(balances={"USD": "1e-13"}), "balance of USD of 'a' is 1e-13"),
        (an_account(balances={"USD": "1e400"}), "balance of USD is '1e400'"),
        (an_account(balances={"USD": "1e9999999"}), "balance of USD is '1e9999999'"),
        (an_account(low_cash="1e400"), "low_cash is '1e400'"),
        (an_account(positions={"AAPL": "0.5"}), "position in AAPL of 'a' is 0.5"),
        (holding(average_price="x"), "average_price of AAPL is 'x'"),
        (holding(average_price="-5"), "average_price of AAPL is '-5'"),
        (holding(average_price="1e-9"), "cost of the position in AAPL of 'a' is 1e-09"),
        (an_alert(count=2), "alert x is there twice"),
        (an_alert("abc"), "threshold of x is 'abc'"),
        (an_alert("NaN"), "threshold of x is 'NaN'"),
        (an_alert("1e-9999999"), "threshold of x is '1e-9999999'"),
        (hours(closes=None), "opens without closes"),
        (hours(holidays=["soon"]), "holidays has 'soon'"),
        (hours(early_closes={"soon": "12:00"}), "early_closes has 'soon'"),
        (hours(timezone="Mars/Olympus"), "timezone is 'Mars/Olympus'"),
        ({"heartbeat_s": 1e-10}, "heartbeat_s: expected float >= 0.001"),
        ({"heartbeat_s": 30, "heartbeat_timeout_s": 5}, "is shorter than heartbeat_s"),
        (a_fault("stale_snapshot", "trades:AAPL"), "'trades:AAPL', not a book"),
        ({"traders": {"rate": 1e-300}}, "traders.rate: expected float >= 0.001"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_would_fail_later_is_an_error_of_the_configuration(fields, says):
    with pytest.raises(ConfigError) as caught:
        Venue(build(**fields))

    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lot", ["3", "0.3", "1000000"])
def test_the_account_for_demonstration_holds_whole_lots(lot):
    venue = Venue(build(**a_symbol(lot=lot)))

    (account,) = venue.config.accounts
    lots = Decimal(account.positions["A"]) / Decimal(lot)
    assert lots >= 1
    assert lots == int(lots)
