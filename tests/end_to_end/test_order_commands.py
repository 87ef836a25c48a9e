"""``feedhandler order``, as a trader types it at a venue of his own."""

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feedhandler.cli import VENUE_VARIABLE
from tests.end_to_end.processes import program, until, venue
from tests.end_to_end.test_programs import feedhandler, one_line

KEY = "demo-key"


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """A venue, and how to get at its account."""
    folder = tmp_path_factory.mktemp("access")
    config, secret = folder / "venue.toml", folder / "secret"
    config.write_text("[limits]\nauthentication_per_minute = 1000\n")
    secret.touch(0o600)
    secret.write_text("a secret of the test\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VENUE_VARIABLE, "a secret of the test")
        with venue("--config", str(config)) as (_, url):
            yield ["--url", url, "--api-key", KEY, "--secret-file", str(secret)]


def order(*arguments: str) -> tuple[int, str, str]:
    done = feedhandler("order", *arguments)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.req("OR-01", "OR-13", "OR-15")
def test_an_order_is_submitted_listed_modified_and_canceled(access: list[str]):
    limit = ("--type", "limit", "--price", "100", "--client-order-id", "mine")
    code, out, err = order("submit", "AAPL", "buy", "5", *limit, *access)
    assert (code, err) == (0, "")
    assert out.startswith("status=accepted order_id=")

    code, out, _ = order("list", *access)
    assert code == 0
    assert re.search(r"mine .*AAPL .*buy .*limit .*5 .*0 .*100 .*live", out)
    assert "USD" in out

    code, out, _ = order(
        "modify", "--client-order-id", "mine", "--price", "99", *access
    )
    assert (code, out.split()[0]) == (0, "status=modified")

    code, out, _ = order("list", "--json", *access)
    (listed,) = json.loads(out)["orders"]
    assert (listed["client_id"], listed["price"]) == ("mine", 99.0)

    code, out, _ = order("cancel", "--all", *access)
    assert code == 0
    assert "status=canceled" in out
    assert "no open orders" in order("list", *access)[1]


@pytest.mark.req("ER-04", "ER-08")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["submit", "AAPL", "buy", "5"], 2, "--type"),
        (["submit", "AAPL", "hold", "5", "--type", "market"], 2, "hold"),
        (["submit", "AAPL", "buy", "0", "--type", "market"], 2, "quantity"),
        (["submit", "NONE", "buy", "5", "--type", "market"], 1, "invalid_parameter"),
        (["cancel", "--order-id", "o-0"], 1, "order_not_found"),
        (["modify", "--order-id", "o-0", "--price", "1"], 1, "unknown order 'o-0'"),
        (["cancel"], 2, "required"),
        (
            [
                "submit",
                "AAPL",
                "buy",
                "5",
                "--type",
                "market",
                "--client-order-id",
                " ",
            ],
            2,
            "client_order_id",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_and_has_its_exit_code(access, arguments, code, words):
    got, out, err = order(*arguments, *access)

    assert (got, out) == (code, "")
    assert words in err
    assert "Traceback" not in err
    assert code == 2 or one_line(err)


def test_a_wrong_secret_is_one_line(access: list[str], tmp_path: Path):
    wrong = tmp_path / "wrong"
    wrong.touch(0o600)
    wrong.write_text("wrong\n")
    code, _, err = order("list", *access[:-1], str(wrong))

    assert code == 3
    assert one_line(err)
    assert "authentication failed" in err


@pytest.mark.req("SEC-27")
def test_the_guards_of_a_configuration_hold_here_too(access: list[str], tmp_path: Path):
    path = tmp_path / "feed.toml"
    path.write_text("[trading]\nmax_quantity = 4\ncollar = 0.05\n")
    limit = ("--type", "limit", "--config", str(path), *access)

    code, _, err = order("submit", "AAPL", "buy", "5", "--price", "150", *limit)
    assert code == 1
    assert "max_quantity" in err
    code, _, err = order("submit", "AAPL", "buy", "4", "--price", "100", *limit)
    assert code == 1
    assert "collar: 100 is too far from" in err
    assert order("submit", "AAPL", "buy", "4", "--price", "145", *limit)[0] == 0


def test_what_happens_is_watched_until_a_signal(access: list[str]):
    with program("order", "watch", "--json", *access) as watch:
        assert watch.process.stdout is not None
        assert json.loads(watch.line())["event"] == "watching"
        order(
            "submit", "AAPL", "buy", "5", "--type", "limit", "--price", "100", *access
        )
        told: dict[str, dict[str, Any]] = {}
        while not {"order", "balance"} <= told.keys():
            line = json.loads(watch.process.stdout.readline())
            if line.get("cause") != "open":
                told.setdefault(line["event"], line)
        watch.process.send_signal(signal.SIGTERM)
        until(lambda: watch.process.poll() is not None or None, "the end")
        assert watch.process.returncode == 0

    assert (told["order"]["cause"], told["order"]["status"]) == ("adopted", "live")
    assert told["order"]["price"] == 100.0


def test_no_secret_can_be_given_as_an_argument(access: list[str]):
    code, _, err = order("list", *access[:-2], "--secret", "my-secret")

    assert code == 2
    assert "my-secret" not in err
    assert os.environ[VENUE_VARIABLE] not in err
