"""The command line in this process: what it takes, what it shows, and what it hides."""

import io
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from feedhandler import config
from feedhandler.cli import STREAMS, _OneLine, main
from feedhandler.config import FeedConfig
from feedhandler.credentials import KEY_VARIABLE, SECRET_VARIABLE
from feedhandler.lines import TEXTS
from feedhandler.records import PRIVATE_STREAMS
from feedhandler.segments import Segments
from tests.secrets_scan import find

KEY, SECRET = "key-0123456789abcdef", "--ecret-of-that-key"
NEEDLES = {"key": KEY, "secret": SECRET}


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither the variables of who runs the tests, nor what main() sets for good."""
    for variable in (KEY_VARIABLE, SECRET_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    picows = logging.getLogger("picows")
    level = picows.level
    yield
    picows.setLevel(level)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "feed.toml"
    path.write_text(
        'url = "wss://venue.example"\nca_file = "ca.pem"\n'
        f'[credentials]\napi_key = "{KEY}"\nsecret_file = "/run/fh/secret"\n'
        '[[instruments]]\nsymbol = "AAPL"\n'
    )
    return str(path)


# ── config show ───────────────────────────────────────────────────────────────────────

SHOWN = """\
url = "wss://venue.example"
ca_file = "ca.pem"
codec = "msgspec"
publish = "every"
quiet_after = 30.0
stall_after = 1.0
resync_interval = 0.0
audit_log = ""
allow_plaintext = false

[credentials]
api_key = "key-…"
secret_file = "/run/fh/secret"
"""


@pytest.mark.req("SEC-24")
def test_the_configuration_is_shown_as_toml_without_the_key(file: str, capsys):
    code = main(["config", "show", "--config", file, "--shm", "x"])
    shown = capsys.readouterr().out

    assert code == 0
    assert shown.startswith(SHOWN)
    assert '\n\n[shm]\nname = "x"\n' in shown
    assert "\nmode = 0o600\n" in shown
    assert find(shown, NEEDLES) == []
    assert config.parse(shown).instruments[0].symbol == "AAPL"


@pytest.mark.req("SEC-24")
def test_what_is_shown_without_a_file_are_the_defaults(capsys):
    assert main(["config", "show"]) == 0
    assert config.parse(capsys.readouterr().out) == FeedConfig()


@pytest.mark.req("SEC-24")
def test_the_environment_s_key_is_shown_shortened_and_the_secret_not_at_all(
    monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)

    assert main(["config", "show"]) == 0
    shown = capsys.readouterr().out
    assert 'api_key = "key-…"' in shown
    assert find(shown, NEEDLES) == []


@pytest.mark.req("SEC-24")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config", "/nonexistent.toml"], "no such file"),
        (["--url", "ws://10.0.0.1"], "plaintext"),
        (
            ["--url", f"wss://me:{SECRET}@venue.example"],
            "url 'wss://***@venue.example'",
        ),
        (["--url", f"http://me:{SECRET}@venue.example"], "is not ws://"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, words, capsys):
    code = main(["config", "show", *arguments])
    told = capsys.readouterr()

    assert (code, told.out) == (2, "")
    assert told.err.count("\n") == 1
    assert words in told.err
    assert find(told.err, NEEDLES) == []


# ── secrets ───────────────────────────────────────────────────────────────────────────


@pytest.mark.req("SEC-03")
@pytest.mark.parametrize(
    "arguments",
    [
        ["--api-secret", SECRET],
        [f"--api-secret={SECRET}"],
        ["--secret", SECRET],
        [f"--secret={SECRET}"],
        [f"--secret-stdin={SECRET}"],
        ["--secret-std", SECRET],
        ["--secret-stdin", "--secret-file", "/run/secret"],
        ["--api-key"],
    ],
)
def test_no_option_takes_a_secret_and_none_that_was_given_is_repeated(
    arguments: list[str], capsys
):
    with pytest.raises(SystemExit) as ended:
        main(["run", "--symbol", "AAPL", *arguments])
    told = capsys.readouterr()

    assert ended.value.code == 2
    assert "error: " in told.err
    assert find(told.out + told.err, NEEDLES) == []


@pytest.mark.req("SEC-03", "SEC-24")
def test_the_help_has_no_option_for_a_secret_and_no_example_of_one(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    text = capsys.readouterr().out

    assert "--secret-file FILE" in text
    assert "--secret-stdin" in text
    assert "--api-secret" not in text
    assert "SECRET=" not in text


def run(*arguments: str) -> int:
    """Run a feed of no instrument: it ends when its credentials have been looked at."""
    return main(["run", "--url", "ws://127.0.0.1:1", *arguments])


@pytest.mark.req("SEC-03")
def test_a_secret_of_the_environment_is_taken_from_it(
    monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)

    assert run() == 2
    assert "no instruments" in capsys.readouterr().err
    assert SECRET_VARIABLE not in os.environ


@pytest.mark.req("SEC-03")
def test_a_secret_comes_by_standard_input(monkeypatch: pytest.MonkeyPatch, capsys):
    typed = io.TextIOWrapper(io.BytesIO(f"{SECRET}\nrest".encode()))
    monkeypatch.setattr(sys, "stdin", typed)

    assert run("--api-key", KEY, "--secret-stdin") == 2
    assert "no instruments" in capsys.readouterr().err
    assert typed.buffer.read() == b"rest"


@pytest.mark.req("SEC-03")
def test_the_option_s_file_goes_before_the_configuration_s(tmp_path, file: str, capsys):
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o640)

    assert main(["run", "--config", file]) == 2
    assert "/run/fh/secret" in capsys.readouterr().err
    assert main(["run", "--config", file, "--secret-file", str(secret)]) == 2
    told = capsys.readouterr().err
    assert "has mode 0o640" in told
    assert find(told, NEEDLES) == []


@pytest.mark.req("SEC-03")
@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({KEY_VARIABLE: KEY}, "an api_key without its secret"),
        ({SECRET_VARIABLE: SECRET}, "a secret without its api_key"),
    ],
)
def test_one_without_the_other_is_one_line(
    variables: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch, capsys
):
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)

    assert run("--symbol", "AAPL") == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1
    assert find(told, NEEDLES) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--retry-for-ever"], "--retry-for-ever"),
        (["--api-secret", SECRET, "more"], "--api-secret …"),
        ([f"--api-secret={SECRET}"], "--api-secret=…"),
        ([SECRET[2:]], "…"),
    ],
)
def test_an_option_that_does_not_exist_is_named(arguments, told, capsys):
    with pytest.raises(SystemExit):
        main(["run", *arguments])

    assert capsys.readouterr().err.endswith(f"unrecognized arguments: {told}\n")


@pytest.mark.req("SEC-05")
def test_a_message_of_the_log_is_one_line_whoever_wrote_it():
    record = logging.LogRecord("picows", 40, "f", 1, "%s", ("a\nERROR \x1b[2J",), None)

    assert _OneLine("%(name)s %(message)s").format(record) == (
        "picows a\\nERROR \\x1b[2J"
    )


# ── tail ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stream", PRIVATE_STREAMS)
def test_a_feed_without_a_key_has_no_account_to_print(stream: str, capsys):
    name = f"tail-{os.getpid()}"
    segments = Segments(name, capacity=64, board_levels=1, instruments=8)
    try:
        segments.publish()
        code = main(["tail", name, "--stream", stream])
    finally:
        segments.close()
    told = capsys.readouterr()

    assert (code, told.out) == (4, "")
    assert told.err == (
        f"feedhandler: feed {name} has no stream {stream}, which wants an API key\n"
    )


def test_every_stream_that_can_be_printed_has_a_line():
    assert list(STREAMS) == ["quotes", "trades", *PRIVATE_STREAMS] == list(TEXTS)
