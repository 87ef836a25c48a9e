"""Where the key and its secret come from, and that nothing is left of them there."""

import io
import os
from pathlib import Path

import pytest

from feedhandler.credentials import (
    KEY_VARIABLE,
    SECRET_VARIABLE,
    find_key,
    find_secret,
)
from feedhandler.errors import ConfigError
from tests.secrets_scan import find, traced

TYPED, FILED, INHERITED = "typed-in-secret", "secret-of-the-file", "inherited-secret"


@pytest.fixture
def secret_file(tmp_path: Path) -> str:
    path = tmp_path / "secret"
    path.write_text(f"{FILED}\n")
    path.chmod(0o600)
    return str(path)


@pytest.mark.parametrize(
    ("configured", "environ", "key"),
    [
        ("", {}, ""),
        ("", {KEY_VARIABLE: "inherited"}, "inherited"),
        ("mine", {KEY_VARIABLE: "inherited"}, "mine"),
    ],
)
def test_the_configured_key_goes_before_the_environment_s(configured, environ, key):
    assert find_key(configured, environ) == key


@pytest.mark.req("SEC-03")
@pytest.mark.parametrize(
    ("typed", "filed", "inherited", "expected"),
    [
        (True, True, True, TYPED),
        (False, True, True, FILED),
        (False, False, True, INHERITED),
        (True, False, False, TYPED),
    ],
)
def test_a_pipe_goes_before_a_file_and_a_file_before_the_environment(
    secret_file: str, typed: bool, filed: bool, inherited: bool, expected: str
):
    environ = {SECRET_VARIABLE: INHERITED, "PATH": "/bin"} if inherited else {}
    stdin = io.BytesIO(f"{TYPED}\r\nmore\n".encode()) if typed else None
    secret = find_secret("key", secret_file if filed else "", environ, stdin)

    assert secret is not None
    assert secret.reveal() == expected.encode()
    assert SECRET_VARIABLE not in environ


@pytest.mark.parametrize("environ", [{}, {SECRET_VARIABLE: ""}])
def test_without_key_and_secret_there_is_none(environ: dict[str, str]):
    assert find_secret("", "", environ) is None


@pytest.mark.req("SEC-03")
def test_a_key_without_a_secret_names_the_three_ways():
    with pytest.raises(ConfigError) as raised:
        find_secret("an-api-key", "", {})

    for way in ("--secret-file", "--secret-stdin", SECRET_VARIABLE):
        assert way in str(raised.value)
    assert "an-api-key" not in str(raised.value)


@pytest.mark.req("SEC-03", "SEC-04")
def test_a_secret_without_a_key_is_refused_and_not_shown(secret_file: str):
    for environ, file, stdin in (
        ({SECRET_VARIABLE: INHERITED}, "", None),
        ({}, secret_file, None),
        ({}, "", io.BytesIO(TYPED.encode())),
    ):
        with pytest.raises(ConfigError, match=KEY_VARIABLE) as raised:
            find_secret("", file, dict(environ), stdin)

        inside = traced(raised.value).partition("in find_secret")[2]
        assert inside
        assert find(inside, {"1": TYPED, "2": FILED, "3": INHERITED}) == []


@pytest.mark.req("SEC-03")
def test_a_file_that_others_can_read_is_refused_even_beside_a_variable(
    secret_file: str,
):
    os.chmod(secret_file, 0o644)
    environ = {SECRET_VARIABLE: INHERITED}

    with pytest.raises(ConfigError, match="has mode 0o644"):
        find_secret("key", secret_file, environ)
    assert environ == {}


@pytest.mark.req("SEC-03")
def test_nothing_is_read_from_a_terminal_which_would_show_it():
    ours, theirs = os.openpty()
    with (
        os.fdopen(ours, "wb"),
        os.fdopen(theirs, "rb") as terminal,
        pytest.raises(ConfigError, match="is a terminal"),
    ):
        find_secret("key", "", {}, terminal)


@pytest.mark.parametrize("line", [b"", b"\n", b"\nsecret"])
def test_an_empty_first_line_is_no_secret(line: bytes):
    with pytest.raises(ConfigError, match="standard input is empty"):
        find_secret("key", "", {SECRET_VARIABLE: INHERITED}, io.BytesIO(line))
