"""Configuration files: TOML into frozen Structs, and errors that name the key."""

import re
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec

from feedhandler.errors import ConfigError

__all__ = ["convert", "decode_toml", "read_toml"]

T = TypeVar("T", bound=msgspec.Struct)

_WHERE = re.compile(r"(?P<what>.*?) - at `\$\.?(?P<key>.*)`", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`")
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`")


def read_toml(path: str, kind: type[T]) -> T:
    """Read the file at *path* as a *kind*.

    Raises ConfigError, in one line, for a file that cannot be read, for an unknown key
    and for a value of the wrong type.
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    return decode_toml(text, kind, path)


def decode_toml(text: bytes, kind: type[T], source: str) -> T:
    """Decode TOML *text* as a *kind*; *source* names it in errors. See read_toml()."""
    try:
        return msgspec.toml.decode(text, type=kind)
    except msgspec.ValidationError as error:
        raise _config_error(error, kind, source) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: not TOML: {str(error)[:200].lower()}") from None


def convert(values: Any, kind: type[T], source: str) -> T:
    """Make a *kind* from plain values, with the checks of a file. See read_toml()."""
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise _config_error(error, kind, source) from None


def _config_error(
    error: msgspec.ValidationError, kind: type[msgspec.Struct], source: str
) -> ConfigError:
    key, what = _explain(str(error), kind)
    return ConfigError(f"{source}: {key + ': ' if key else ''}{what}", key or None)


def _explain(message: str, kind: type[msgspec.Struct]) -> tuple[str, str]:
    """Turn msgspec's message into the key and what was expected there."""
    match = _WHERE.fullmatch(message)
    what, key = (match["what"], match["key"]) if match else (message, "")
    unknown = _UNKNOWN.fullmatch(what)
    if unknown:
        table = _type_at(kind, key)
        expected = ", ".join(f.encode_name for f in msgspec.structs.fields(table))
        name = unknown["name"]
        return f"{key}.{name}" if key else name, f"unknown key; expected {expected}"
    missing = _MISSING.fullmatch(what)
    if missing:
        name = missing["name"]
        return f"{key}.{name}" if key else name, "missing, and it has no default"
    choices = _choices(_type_at(kind, key))
    if what.startswith("Invalid enum value") and choices:
        given = what.removeprefix("Invalid enum value ")
        return key, f"expected one of {choices}, got {given}"
    return key, what[:1].lower() + what[1:].replace("`", "")


def _type_at(kind: Any, key: str) -> Any:
    """Return the type at *key*, such as ``shm.capacity`` or ``instruments[0]``."""
    for part in re.findall(r"[A-Za-z_]\w*", key):
        kind = _struct_in(kind)
        for field in msgspec.structs.fields(kind):
            if field.encode_name == part:
                kind = field.type
                break
    return kind if get_origin(kind) is Literal else _struct_in(kind)


def _struct_in(annotation: Any) -> Any:
    """Return the Struct type inside an annotation such as tuple[S, ...]."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, msgspec.Struct):
            return candidate
    return annotation


def _choices(annotation: Any) -> str:
    """List the values of a Literal; large numbers are file modes, so octal."""
    if get_origin(annotation) is not Literal:
        return ""
    return ", ".join(
        f"{value:#o}" if isinstance(value, int) else repr(value)
        for value in get_args(annotation)
    )
