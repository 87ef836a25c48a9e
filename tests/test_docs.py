"""The pages say what there is: what the venue takes and does, what records have."""

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from feedhandler import records
from feedhandler.settings import decode_toml
from feedhandler.venue.config import (
    CalendarConfig,
    FaultConfig,
    LimitsConfig,
    SymbolConfig,
    TradersConfig,
    VenueConfig,
)

PAGE = Path(__file__).parents[1] / "docs" / "venue.md"
BLOCKS = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=["whole", "faults"])
def test_the_configuration_of_the_page_is_one(block):
    config = decode_toml(block.encode(), VenueConfig, "venue.md")

    assert config.symbols
    assert config.accounts or config.faults


def test_the_defaults_of_the_page_are_those_of_the_code():
    """Every key of a table that shows its defaults is there, with its value."""
    config = decode_toml(BLOCKS[0].encode(), VenueConfig, "venue.md")

    assert config.limits == LimitsConfig()
    assert config.traders == TradersConfig()
    assert VenueConfig() == msgspec.structs.replace(
        config, symbols=VenueConfig().symbols, accounts=[], calendar=CalendarConfig()
    )
    symbol, plain = config.symbols[0], SymbolConfig(name="X", previous_close=1.0)
    assert (symbol.maker_fee, symbol.taker_fee) == (plain.maker_fee, plain.taker_fee)


@pytest.mark.parametrize("table", [LimitsConfig, TradersConfig, VenueConfig])
def test_the_page_has_every_key(table):
    told = set(re.findall(r"^\[*([a-z_.]+)", "\n".join(BLOCKS), re.MULTILINE))
    unlisted = {"allow_plaintext", "replay"}
    keys = {field.encode_name for field in msgspec.structs.fields(table)}

    assert keys - told - unlisted == set()


def test_the_page_has_every_fault():
    kinds = set(get_args(FaultConfig.__annotations__["kind"]))
    told = set(re.findall(r"`([a-z_]+)`", PAGE.read_text()))

    assert kinds - told == set()


# ── records of the account ────────────────────────────────────────────────────────────

PRIVATE = (PAGE.parent / "private.md").read_text()
KINDS = (
    records.PrivateFlags, records.OrderStatus, records.OrderOperation,
    records.PendingFlags, records.EventCause, records.AccountKind, records.NoticeKind,
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_has_every_word_of_a_private_record(kind):
    told = set(re.findall(r"`([A-Z_]+)`", PRIVATE))
    unlisted = {"CAUSE_UNKNOWN"}

    assert {member.name for member in kind} - told - unlisted == set()


def test_the_page_has_the_numbers_of_the_statuses():
    told = dict(re.findall(r"`([A-Z_]+)` \((\d)\)", PRIVATE))

    assert told == {member.name: str(member.value) for member in records.OrderStatus}


@pytest.mark.parametrize("stream", records.PRIVATE_STREAMS)
def test_the_page_has_what_is_special_in_a_stream(stream):
    plain = {
        *("seq", "created_ns", "updated_ns", "symbol", "price", "stop_price", "fee"),
        *("fee_currency", "link", "message", "quantity", "side"),
    }
    told = set(re.findall(r"`([a-z_]+)`", PRIVATE))

    assert set(records.PRIVATE_STREAMS[stream].names) - plain - told == set()
