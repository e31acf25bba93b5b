"""A node's key as TLS sees it: a self-signed certificate whose public key is the node's id.

Nobody else vouches for anybody: who is trusted is a list of such certificates, each heard of over a
connection that has proven the peer's id. Knows nothing of connections.
"""

import os
import ssl
import warnings
from collections.abc import Iterable
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.transport import PeerError

CERTIFICATE_BYTES_MAX = 4096
"""Ours have 290."""

SUBJECT = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mesh-llm node")])

BEGIN, END = datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
"""A certificate lasts as long as its key; clocks that are wrong do no harm."""


class TlsIdentity:
    def __init__(self, secret_key: bytes) -> None:
        key = Ed25519PrivateKey.from_private_bytes(secret_key)
        certificate = _self_signed(key)
        self.certificate = certificate.public_bytes(Encoding.DER)
        self._pem = certificate.public_bytes(Encoding.PEM)
        self._key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def server_context(self, certificates: Iterable[bytes]) -> ssl.SSLContext:
        """Lets in who holds the key of one of these."""
        context = self._context(ssl.PROTOCOL_TLS_SERVER, certificates)
        context.num_tickets = 0
        return context

    def client_context(self, certificate: bytes) -> ssl.SSLContext:
        """Speaks to who holds the key of this one. Raises PeerError where it is damaged."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT, [certificate])

    def _context(self, side: int, certificates: Iterable[bytes]) -> ssl.SSLContext:
        context = ssl.SSLContext(side)
        context.check_hostname = False  # ids have no host names: the certificate itself is compared
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        for certificate in certificates:
            try:
                context.load_verify_locations(cadata=certificate)
            except ssl.SSLError as error:  # stricter than what reads it in `node_of`
                raise PeerError(f"a certificate that cannot be read: {error}") from error
        _load(context, self._pem, self._key_pem)
        return context


def node_of(certificate: bytes) -> NodeId:
    """Whose it claims to be; the TLS handshake proves it. Raises PeerError."""
    if len(certificate) > CERTIFICATE_BYTES_MAX:
        raise PeerError(f"a certificate of {len(certificate)} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what peers show is no concern of this program's user
            key = x509.load_der_x509_certificate(certificate).public_key()
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise PeerError(f"a certificate that cannot be read: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise PeerError("a certificate without an Ed25519 key")
    return NodeId(key.public_bytes_raw().hex())


def _self_signed(key: Ed25519PrivateKey) -> x509.Certificate:
    """The same each time: Ed25519 signatures draw no lots."""
    return (
        x509.CertificateBuilder()
        .subject_name(SUBJECT)
        .issuer_name(SUBJECT)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(BEGIN)
        .not_valid_after(END)
        .sign(key, None)
    )


def _load(context: ssl.SSLContext, *parts: bytes) -> None:
    """Python's TLS wants files; pipes keep the key off the disk."""
    readers = [_pipe_with(part) for part in parts]
    try:
        context.load_cert_chain(*(f"/dev/fd/{reader}" for reader in readers))
    finally:
        for reader in readers:
            os.close(reader)


def _pipe_with(content: bytes) -> int:
    """Its readable end; so few bytes fit into any pipe's buffer."""
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    return reader
