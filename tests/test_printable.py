"""What comes from elsewhere stays on its line, and moves no cursor."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.errors import ConnectionFailed, RequestFailed
from feedhandler.printable import printable


@pytest.mark.req("SEC-05")
@given(st.text())
def test_it_is_one_line_of_printable_text(text: str):
    assert printable(text).isprintable()
    assert printable(text) == text or not text.isprintable()


@pytest.mark.req("SEC-05")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("AAPL 1.5 – ü", "AAPL 1.5 – ü"),
        ("a\r\nfailed", "a\\r\\nfailed"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("\x9b31m\x00", "\\x9b31m\\x00"),
        ("\u202egnp.exe\u2028", "\\u202egnp.exe\\u2028"),
        ("\ud800", "\\ud800"),
    ],
)
def test_line_ends_and_controls_are_escaped(text: str, shown: str):
    assert printable(text) == shown


@pytest.mark.req("SEC-05")
def test_an_error_with_the_venue_s_words_is_one_line():
    words = "no\n2026-01-01 ERROR \x1b[31mforged"
    failed, refused = ConnectionFailed("ws://x", words), RequestFailed("c", words)

    assert str(failed) == f"connection to ws://x failed: {printable(words)}"
    assert str(refused) == f"c: {printable(words)}"
    assert failed.reason == refused.message == words
