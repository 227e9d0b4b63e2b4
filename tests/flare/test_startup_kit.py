from datetime import datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from flaretune.errors import UserError
from flaretune.flare.watch import administrator_of


def certificate(*subject) -> bytes:
    """A self-signed certificate of this subject, as PEM."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(timezone.utc)
    name = x509.Name([x509.NameAttribute(kind, value) for kind, value in subject])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def kit(folder, content: bytes):
    (folder / "startup").mkdir()
    (folder / "startup" / "client.crt").write_bytes(content)
    return folder


def test_a_kit_knows_whose_it_is(tmp_path):
    anna = (NameOID.COMMON_NAME, "anna@coordinator.example")
    assert administrator_of(kit(tmp_path, certificate((NameOID.ORGANIZATION_NAME, "coordinator"), anna))) == anna[1]


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"is no administrator's startup kit: startup/client.crt cannot be read"):
        administrator_of(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{}", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_damaged_kit_is_refused(content, tmp_path):
    with pytest.raises(UserError, match="is damaged; provision the kit again"):
        administrator_of(kit(tmp_path, content))


def test_a_certificate_of_nobody_is_refused(tmp_path):
    with pytest.raises(UserError, match="names nobody; provision the kit again"):
        administrator_of(kit(tmp_path, certificate((NameOID.ORGANIZATION_NAME, "coordinator"))))
