"""A secret is nowhere to be seen, and a file that others can read is refused."""

import copy
import functools
import io
import json
import logging
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedhandler.authentication import ApiKey, Login
from feedhandler.config import Credentials, FeedConfig
from feedhandler.errors import ConfigError
from feedhandler.protocol.messages import Authenticate, AuthenticateData
from feedhandler.protocol.signature import sign
from feedhandler.secret import BYTES_MAX, Secret, shorten
from feedhandler.venue.access import Key
from tests.secrets_scan import dump_of_ours, find, pretty, showings, traced

TEXT = "correct-horse-battery"


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=24).map(
    lambda text: f"s3cr3t {text} horse"
)


class Holder(NamedTuple):
    """What has a secret among its parts."""

    name: str
    secret: Secret


@dataclass
class Owner:
    """What has one as an attribute."""

    secret: Secret


class Struct(msgspec.Struct):
    """What msgspec would encode."""

    secret: Any


def around(secret: Secret) -> list[Any]:
    """A secret, and everything that may have it at a venue or at a client."""
    return [
        secret, [secret], {"secret": secret}, Holder("x", secret), Owner(secret),
        Struct(secret), functools.partial(sign, "k", secret), Key("k", secret, "acc"),
        ApiKey("a-key-of-ours", secret), Login(ApiKey("a-key-of-ours", secret)),
    ]  # fmt: skip


@pytest.mark.req("SEC-04")
@given(TEXTS)
@settings(max_examples=20)
def test_nothing_shows_a_secret(text: str):
    secret = Secret(text)

    for thing in around(secret):
        for shown in showings(thing):
            assert find(shown, {"secret": text}) == []
    assert secret.reveal() == text.encode()


@pytest.mark.req("SEC-04")
@given(TEXTS)
def test_a_record_of_the_log_and_a_format_have_no_secret(text: str):
    secret = Secret(text)
    record = logging.LogRecord("x", 10, "f", 1, "%s %r", (secret, secret), None)

    assert find(f"{secret:>40} {secret!r:<9} {[secret]}", {"secret": text}) == []
    assert record.getMessage() == "*** Secret(***)"


@pytest.mark.req("SEC-04")
@pytest.mark.parametrize(
    "encode", [pickle.dumps, msgspec.json.encode, json.dumps, msgspec.to_builtins]
)
def test_a_secret_is_not_pickled_or_encoded(encode):
    with pytest.raises(TypeError) as raised:
        encode(Secret(TEXT))

    assert find(traced(raised.value), {"secret": TEXT}) == []


@pytest.mark.req("SEC-04")
def test_a_traceback_with_all_locals_has_no_secret():
    def fail(secret: Secret) -> None:
        raise RuntimeError(f"cannot use {secret}")

    with pytest.raises(RuntimeError) as raised:
        fail(Secret(TEXT))

    assert "secret = Secret(***)" in traced(raised.value)
    assert find(traced(raised.value), {"secret": TEXT}) == []


@pytest.mark.req("SEC-04")
def test_no_object_of_ours_shows_a_secret_to_a_dump_of_the_heap():
    credentials = Credentials(api_key="key-of-mine", secret_file="/run/secret")
    held = [*around(Secret(TEXT)), FeedConfig(credentials=credentials)]
    shown = "".join(dump_of_ours())

    assert len(held) > 1
    assert all(text in shown for text in ("Secret(***)", "'key-…'", "'/run/secret'"))
    assert find(shown, {"secret": TEXT, "key": "key-of-mine"}) == []


@pytest.mark.req("SEC-04", "SEC-05")
def test_an_authentication_shows_neither_its_key_nor_its_signature():
    data = AuthenticateData("an-api-key", sign("an-api-key", b"secret", 1), 1)
    shown = f"{Authenticate(data=data)} {Authenticate(data=data)!r} {pretty(data)}"

    assert "an-a…" in shown
    assert find(shown, {"key": data.api_key, "signature": data.signature}) == []


@pytest.mark.req("SEC-05")
@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("", ""),
        ("a", "…"),
        ("ab", "a…"),
        ("abcde", "ab…"),
        ("abcdefgh", "abcd…"),
        ("0123456789abcdef", "0123…"),
    ],
)
def test_a_key_is_shown_by_its_beginning_alone(key: str, shown: str):
    assert shorten(key) == shown


def test_a_copy_is_the_same_secret():
    secret = Secret(TEXT)

    assert copy.deepcopy([secret])[0].reveal() == copy.copy(secret).reveal()


@pytest.mark.req("SEC-03")
def test_a_file_of_mode_0600_is_read_without_its_line_end(tmp_path):
    path = tmp_path / "secret"
    path.write_text(f"{TEXT}\nmore\n")
    path.chmod(0o600)

    assert Secret.from_file(path).reveal() == TEXT.encode()


def refuse_link(path: Path) -> None:
    real = path.with_name("real")
    path.rename(real)
    path.symlink_to(real)


@pytest.mark.req("SEC-03")
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.chmod(0o644), "has mode 0o644"),
        (lambda path: path.chmod(0o640), "has mode 0o640"),
        (lambda path: path.write_text(""), "is empty"),
        (lambda path: path.write_text("\nx"), "is empty"),
        (lambda path: path.unlink(), "no such file"),
        (lambda path: (path.unlink(), os.mkfifo(path, 0o600)), "not a regular file"),
        (refuse_link, "symbolic links"),
    ],
    ids=["0644", "0640", "empty", "blank", "absent", "fifo", "link"],
)
def test_a_file_that_is_not_a_secret_is_refused(tmp_path, spoil, reason):
    path = tmp_path / "secret"
    path.write_text(TEXT)
    path.chmod(0o600)
    spoil(path)

    with pytest.raises(ConfigError, match=reason) as raised:
        Secret.from_file(path)
    assert TEXT not in str(raised.value)


@pytest.mark.parametrize("text", ["", b"", f"{TEXT}\ud800"])
def test_what_is_no_secret_is_refused_and_not_shown(text: str | bytes):
    with pytest.raises(ConfigError, match="empty, or no text") as raised:
        Secret(text)

    inside = traced(raised.value).partition("in __init__")[2]
    assert inside
    assert find(inside, {"secret": TEXT}) == []


def test_the_bytes_of_a_variable_that_is_not_utf_8_are_kept():
    assert Secret(os.fsdecode(b"a\xffb")).reveal() == b"a\xffb"


def test_a_first_line_that_is_too_long_is_refused_and_not_shown():
    whole = b"x" * BYTES_MAX
    assert Secret.from_stream(io.BytesIO(whole + b"\r\n"), "it").reveal() == whole

    with pytest.raises(ConfigError, match="it: the first line is over 4096") as raised:
        Secret.from_stream(io.BytesIO(f"{TEXT}{'x' * BYTES_MAX}".encode()), "it")
    assert find(traced(raised.value), {"secret": TEXT}) == []
