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


@pytest.mark.req("ER-01", "ER-12")
def test_every_error_code_has_an_exception_of_its_own_and_a_new_one_is_plain():
    from feedhandler import errors
    from feedhandler.protocol.codes import ErrorCode

    found = {
        code: errors.RequestFailed.of(code, "why", "id-1", 3) for code in ErrorCode
    }
    kinds = {type(error) for error in found.values()}
    assert len(kinds) == len(ErrorCode) == 10
    for code, error in found.items():
        name = "".join(word.title() for word in code.split("_"))
        assert type(error).__name__ == name
        assert (error.code, error.message) == (code, "why")
        assert (error.request_id, error.retry_after) == ("id-1", 3)
    unknown = isinstance(found[ErrorCode.INTERNAL_ERROR], errors.OutcomeUnknown)
    assert unknown
    assert type(errors.RequestFailed.of("new", "why")) is errors.RequestFailed


def test_the_errors_are_one_tree():
    from feedhandler import errors

    for name in errors.__all__:
        assert issubclass(getattr(errors, name), errors.FeedError)
    assert issubclass(errors.UnknownSymbol, KeyError)
    assert str(errors.UnknownSymbol("AAPL")) == "unknown symbol 'AAPL'"
    assert errors.SequenceGap(5, 8).expected == 5
