"""The package's face: lazy, complete, and light for consumers."""

import subprocess
import sys

import pytest

import feedhandler


def fresh(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_consumer_loads_neither_asyncio_nor_picows():
    code = (
        "import sys, feedhandler\n"
        "assert callable(feedhandler.attach)\n"
        "feedhandler.flag_names(3)\n"
        "print(sorted({'asyncio', 'picows', 'msgspec', 'uvloop'} & set(sys.modules)))"
    )

    assert fresh(code).strip() == "[]"


@pytest.mark.parametrize("name", feedhandler.__all__)
def test_every_public_name_can_be_imported(name: str):
    assert getattr(feedhandler, name) is not None
    assert name in dir(feedhandler)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        feedhandler.nonsense  # noqa: B018


def test_the_errors_are_one_tree():
    from feedhandler import errors

    for name in errors.__all__:
        assert issubclass(getattr(errors, name), errors.FeedError)
    assert issubclass(errors.UnknownSymbol, KeyError)
    assert str(errors.UnknownSymbol("AAPL")) == "unknown symbol 'AAPL'"
    assert errors.SequenceGap(5, 8).expected == 5
