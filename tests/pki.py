"""A certificate authority for tests: certificates of servers and of clients, as PEM files."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Authority", "Pair"]

_HOUR = dt.timedelta(hours=1)


class Pair(NamedTuple):
    """The files of a certificate and of its private key."""

    certificate: Path
    private_key: Path


class Authority:
    """Signs certificates. Its own one lies in `file`."""

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._issued = 0
        now = dt.datetime.now(dt.UTC)
        self._certificate = (
            _builder(self._name, self._name, self._key, now - _HOUR, now + 24 * _HOUR)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / f"{name.replace(' ', '-')}.pem"
        self.file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, *, passphrase: bytes | None = None) -> Pair:
        """Make the certificate of a server on this machine."""
        hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        return self._issue("localhost", ExtendedKeyUsageOID.SERVER_AUTH, hosts=hosts, passphrase=passphrase)

    def client(
        self, common_name: str, *, not_before: dt.datetime | None = None, not_after: dt.datetime | None = None
    ) -> Pair:
        """Make the certificate of a client, valid for a day from an hour ago where nothing else is said."""
        return self._issue(common_name, ExtendedKeyUsageOID.CLIENT_AUTH, not_before=not_before, not_after=not_after)

    def trust(self, client: Pair | None = None) -> ssl.SSLContext:
        """Make the context of a client that trusts this authority, and shows a certificate where one is given."""
        context = ssl.create_default_context(cafile=str(self.file))
        if client is not None:
            context.load_cert_chain(client.certificate, client.private_key)
        return context

    def _issue(
        self,
        common_name: str,
        purpose: x509.ObjectIdentifier,
        *,
        hosts: list[x509.GeneralName] | None = None,
        not_before: dt.datetime | None = None,
        not_after: dt.datetime | None = None,
        passphrase: bytes | None = None,
    ) -> Pair:
        now, key = dt.datetime.now(dt.UTC), ec.generate_private_key(ec.SECP256R1())
        begin, end = not_before or now - _HOUR, not_after or now + 24 * _HOUR
        builder = (
            _builder(_name(common_name), self._name, key, begin, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        self._issued += 1
        return self._write(builder.sign(self._key, hashes.SHA256()), key, passphrase)

    def _write(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, passphrase: bytes | None) -> Pair:
        stem = self._folder / f"{self.file.stem}-{self._issued}"
        pair = Pair(stem.with_suffix(".crt"), stem.with_suffix(".key"))
        pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        pair.private_key.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )
        return pair


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    begin: dt.datetime,
    end: dt.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
