"""Servers and certificates for tests: what an old controller machine, another one, or something else would show."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lab.bootstrap import NAMES, Identity

ADDRESS = "127.0.0.1"


class Listener:
    """Answers every connection; with TLS when a certificate is given, and as mongod does when it demands one of the client."""

    def __init__(
        self, pem: Path | None, client_ca: str | None = None, tls: ssl.TLSVersion | None = None, address: str = ADDRESS
    ) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.socket = socket.create_server((address, 0), family=family)
        self.port: int = self.socket.getsockname()[1]
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if pem else None
        if self.context and pem:
            self.context.load_cert_chain(pem)
            if tls:
                self.context.maximum_version = tls
            if client_ca:
                self.context.verify_mode = ssl.CERT_REQUIRED
                self.context.load_verify_locations(cadata=client_ca)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self.socket.accept()
            except OSError:
                return
            try:
                if not self.context:
                    plain.sendall(b"SSH-2.0-something\r\n")
                    continue
                with self.context.wrap_socket(plain, server_side=True) as secured:
                    secured.recv(100)
                    secured.sendall(b"HTTP/1.1 404 Not Found\r\n\r\n")
            except OSError:
                pass
            finally:
                plain.close()


def leaf(identity: Identity, begins: int, ends: int) -> str:
    """A server certificate and its key, signed by the identity's CA, valid between two days from now."""
    now, key = datetime.datetime.now(datetime.timezone.utc), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(identity.ca_cert.encode())
    signer = serialization.load_pem_private_key(identity.ca_key.encode(), None)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "*")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=begins))
        .not_valid_after(now + datetime.timedelta(days=ends))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in NAMES]), False)
        .sign(signer, hashes.SHA256())  # type: ignore[arg-type]
    )
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return (made.public_bytes(serialization.Encoding.PEM) + pem).decode()
