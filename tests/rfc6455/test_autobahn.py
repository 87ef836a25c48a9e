"""The Autobahn cases of RFC 6455 for both roles, where kosoku is there to run them."""

import importlib.util

import pytest

NEEDED = [
    name for name in ("kosoku", "Cython") if importlib.util.find_spec(name) is None
]
# Of the 517 cases, 216 are about compression, which is never negotiated.
CASES = 301

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(bool(NEEDED), reason=f"not installed: {', '.join(NEEDED)}"),
]


@pytest.mark.req("F-23", "F-24", "F-25")
@pytest.mark.parametrize("role", ["server", "client"])
def test_every_case_that_is_not_named_a_deviation_is_passed(role):
    from tests.rfc6455.run import report, run, unexpected

    results = run(role)
    print()
    report(results)

    assert len({result.case_id for result in results}) == len(results) == CASES
    assert unexpected(results) == {}
