"""The signature of an authentication request."""

import hashlib
import hmac

__all__ = ["sign"]


def sign(api_key: str, secret: bytes, timestamp_ms: int) -> str:
    """Return the lower-case hex HMAC-SHA256 of key and timestamp under *secret*."""
    message = f"{api_key}{timestamp_ms}".encode()
    return hmac.new(secret, message, hashlib.sha256).hexdigest()
