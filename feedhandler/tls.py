"""How a client trusts a venue: its certificate and its name are verified, always."""

import ssl

from feedhandler.errors import ConfigError

__all__ = ["client_context"]


def client_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities, or *ca_file*'s alone.

    A certificate of a venue's own is its own authority, and can be in the file too.
    Raises ConfigError for a file without a certificate.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except ssl.SSLError:
        raise ConfigError(
            f"ca_file {ca_file}: no certificate in PEM", "ca_file"
        ) from None
    except (OSError, ValueError) as error:
        why = (getattr(error, "strerror", None) or str(error)).lower()
        raise ConfigError(f"ca_file {ca_file!r}: {why}", "ca_file") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python takes a file from SSLKEYLOGFILE; with the keys in it all can be read.
    context.keylog_filename = None  # type: ignore[assignment]
    return context
