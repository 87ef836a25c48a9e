"""The page on the venue says what the venue takes, and what it does."""

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

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
