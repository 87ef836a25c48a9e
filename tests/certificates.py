"""Certificates for tests, good ones and bad ones, as openssl makes them."""

import ssl
import subprocess
import warnings
from pathlib import Path
from typing import NamedTuple

NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
OURS = "IP:127.0.0.1"
# As strict checks want them, which Python has since 3.13.
AUTHORITY = (
    "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,digitalSignature"
)
LEAF = "basicConstraints=CA:FALSE\nauthorityKeyIdentifier=keyid\nsubjectAltName="


class Certificate(NamedTuple):
    """Two files of PEM: the certificate and its key, which only we can read."""

    cert: str
    key: str

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        return context


def authority(folder: Path, name: str = "authority") -> Certificate:
    """Make a certificate that signs others."""
    return made(folder, name, AUTHORITY, 1, None)


def self_signed(folder: Path, name: str = "self-signed") -> Certificate:
    """Make one that nobody signed but itself."""
    return made(folder, name, f"{AUTHORITY}\nsubjectAltName={OURS}", 1, None)


def issued(
    folder: Path, name: str, by: Certificate, names: str = OURS, days: int = 1
) -> Certificate:
    """Make one that *by* signed; with -1 for *days* it ended yesterday."""
    return made(folder, name, f"{LEAF}{names}", days, by)


def made(
    folder: Path, name: str, extensions: str, days: int, by: Certificate | None
) -> Certificate:
    request, text, cert, key = (
        str(folder / f"{name}.{kind}") for kind in ("csr", "ext", "pem", "key")
    )
    Path(text).write_text(extensions)
    openssl("req", "-new", *NEW_KEY, "-keyout", key, "-out", request, "-subj", "/CN=x")
    signer = ["-CA", by.cert, "-CAkey", by.key] if by else ["-signkey", key]
    signer += ["-CAcreateserial"] if by else []
    openssl(
        "x509", "-req", "-in", request, *signer,
        "-days", str(days), "-extfile", text, "-out", cert,
    )  # fmt: skip
    Path(key).chmod(0o600)
    return Certificate(cert, key)


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def only_tls_1_1(context: ssl.SSLContext) -> ssl.SSLContext:
    """Let a context speak nothing newer than what was given up in 2021."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context
