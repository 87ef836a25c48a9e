"""The scanner finds a secret however it is written, or its silence says nothing."""

import base64
import json
import secrets
from urllib.parse import quote

import pytest

from tests.secrets_scan import find

SECRET = 'pl4nt3d/+"secret\\é&'

WAYS = {
    "plain": lambda s: s.encode(),
    "base64": lambda s: base64.b64encode(s.encode()),
    "base64 with something before it": lambda s: base64.b64encode(f"key:{s}".encode()),
    "base64 inside a text": lambda s: base64.b64encode(f"ab{s}yz".encode()),
    "base64 for URLs": lambda s: base64.urlsafe_b64encode(s.encode()),
    "percent-encoded": lambda s: quote(s, safe="").encode(),
    "percent-encoded all over": lambda s: "".join(
        f"%{b:02x}" for b in s.encode()
    ).encode(),
    "JSON": lambda s: json.dumps({"api_secret": s}).encode(),
    "JSON of UTF-8": lambda s: json.dumps(s, ensure_ascii=False).encode(),
    "JSON, each character": lambda s: "".join(f"\\u{ord(c):04X}" for c in s).encode(),
    "a repr of text": lambda s: repr({"secret": s}).encode(),
    "a repr of bytes": lambda s: repr(s.encode()).encode(),
    "hex": lambda s: s.encode().hex().encode(),
    "backwards": lambda s: s.encode()[::-1],
    "UTF-16": lambda s: s.encode("utf-16-le"),
}


@pytest.mark.req("I-18")
@pytest.mark.parametrize("way", WAYS)
def test_a_planted_secret_is_found(way: str):
    planted = WAYS[way](SECRET)
    noise = secrets.token_bytes(3000)

    assert find(noise + planted + noise, {"secret": SECRET})
    assert find(b"\n".join([b'{"m": "%41\\u0042"}', planted]), {"secret": SECRET})


@pytest.mark.req("I-18")
@pytest.mark.parametrize("way", WAYS)
def test_another_secret_or_a_part_of_it_is_not_found(way: str):
    noise = secrets.token_bytes(3000)

    for text in (SECRET[:-1], SECRET.upper(), "***", "pl4n…"):
        assert find(noise + WAYS[way](text) + noise, {"secret": SECRET}) == []


def test_a_needle_that_chance_would_find_is_refused():
    with pytest.raises(AssertionError, match="too short"):
        find("", {"secret": "abc"})
