"""Where a client's API key and secret come from: options, a file, the environment.

The environment and standard input are arguments; they are the command line's to hand
out. A secret is never an argument of a program: everybody can list those.
"""

from collections.abc import Mapping, MutableMapping
from typing import BinaryIO

from feedhandler.errors import ConfigError
from feedhandler.secret import Secret

__all__ = ["KEY_VARIABLE", "SECRET_VARIABLE", "WAYS", "find_key", "find_secret"]

KEY_VARIABLE = "FEEDHANDLER_API_KEY"
SECRET_VARIABLE = "FEEDHANDLER_API_SECRET"
WAYS = f"--secret-file (or secret_file), --secret-stdin or {SECRET_VARIABLE}"


def find_key(api_key: str, environ: Mapping[str, str]) -> str:
    """Return the configured *api_key*, else the environment's, else nothing."""
    return api_key or environ.get(KEY_VARIABLE, "")


def find_secret(
    api_key: str,
    secret_file: str,
    environ: MutableMapping[str, str],
    stdin: BinaryIO | None = None,
) -> Secret | None:
    """Return the secret of *api_key*; None where there is neither.

    It is the first line of *stdin*, if that is given; else that of *secret_file*; else
    the environment's. That one is removed from *environ*, used or not, so that no child
    inherits it. A key without a secret is a ConfigError, and a secret without a key.
    """
    secret = _inherited(environ)
    if stdin is not None:
        secret = _typed(stdin)
    elif secret_file:
        secret = Secret.from_file(secret_file)
    if api_key and secret is None:
        raise ConfigError(f"an api_key without its secret: give it by {WAYS}")
    if secret is not None and not api_key:
        raise ConfigError(
            "a secret without its api_key: give it by --api-key, api_key or "
            f"{KEY_VARIABLE}"
        )
    return secret


def _inherited(environ: MutableMapping[str, str]) -> Secret | None:
    value = environ.pop(SECRET_VARIABLE, "")
    return Secret(value) if value else None


def _typed(stdin: BinaryIO) -> Secret:
    if stdin.isatty():
        raise ConfigError(
            "standard input is a terminal, which shows what is typed: give the secret "
            "by a pipe or a file"
        )
    return Secret.from_stream(stdin, "standard input")
