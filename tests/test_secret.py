"""A secret is nowhere to be seen, and a file that others can read is refused."""

import copy
import json
import logging
import os
import pickle
import traceback
from pathlib import Path

import msgspec
import pytest

from feedhandler.errors import ConfigError
from feedhandler.secret import Secret

TEXT = "correct-horse-battery"


def showings(secret: Secret) -> list[str]:
    """Everything that somebody might print of it."""
    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>40}", f"{[secret]}"]
    shown += [repr(dir(secret)), repr(secret.__slots__)]
    shown += [repr(getattr(secret, name)) for name in dir(secret) if name != "reveal"]
    record = logging.LogRecord("x", 10, "f", 1, "secret=%s", (secret,), None)
    return [*shown, record.getMessage()]


@pytest.mark.req("SEC-04")
def test_nothing_shows_a_secret():
    secret = Secret(TEXT)

    assert not [shown for shown in showings(secret) if TEXT in shown]
    assert secret.reveal() == TEXT.encode()


@pytest.mark.req("SEC-04")
def test_a_secret_is_not_pickled_or_encoded():
    secret = Secret(TEXT)
    for encode in (pickle.dumps, msgspec.json.encode, json.dumps, msgspec.to_builtins):
        with pytest.raises(TypeError) as raised:
            encode(secret)

        assert TEXT not in str(raised.value)


@pytest.mark.req("SEC-04")
def test_a_traceback_with_all_locals_has_no_secret():
    def fail(secret: Secret) -> None:
        raise RuntimeError(f"cannot use {secret}")

    try:
        fail(Secret(TEXT))
    except RuntimeError as error:
        whole = traceback.TracebackException.from_exception(error, capture_locals=True)

    assert "secret" in "".join(whole.format())
    assert TEXT not in "".join(whole.format())


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


def test_an_empty_secret_is_refused():
    with pytest.raises(ConfigError, match="empty"):
        Secret("")
