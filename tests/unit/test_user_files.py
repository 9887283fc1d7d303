"""Files of the user for an outside relay: certificates of its authorities."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mailstack.config import pki, user_files
from mailstack.errors import CredentialsError, InputError


def test_only_the_certificates_of_a_file_are_taken(tmp_path: Path) -> None:
    first, second = pki.make({}).ca, pki.make({}).ca
    file = tmp_path / "ca.pem"
    file.write_text(f"a note\n{first}another note\n{second}")
    assert user_files.read_authorities(file) == first + second


@pytest.mark.parametrize("text", [b"", b"a note", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nMIIB\n"])
def test_a_file_without_a_certificate_is_refused(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(text)
    with pytest.raises(InputError, match="contains no certificate") as caught:
        user_files.read_authorities(file)
    assert "BEGIN CERTIFICATE" in caught.value.remedy


def test_a_certificate_of_a_server_is_no_authoritys(tmp_path: Path) -> None:
    made = pki.make({"server": ["relay.test"]})
    _, begin, rest = made.servers["server"].reveal().partition("-----BEGIN CERTIFICATE-----")
    file = tmp_path / "ca.pem"
    file.write_text((begin + rest).removesuffix(made.ca))
    with pytest.raises(InputError, match="the certificate in it is not a CA's"):
        user_files.read_authorities(file)


def test_a_ca_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: the file with the relay's CA does not exist"):
        user_files.read_authorities(tmp_path / "nowhere")
    with pytest.raises(InputError, match="must be a file"):
        user_files.read_authorities(tmp_path)
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(InputError, match="cannot be read: Too many levels of symbolic links"):
        user_files.read_authorities(tmp_path / "circle")


def test_credentials_are_read_from_a_file_of_the_user_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "relay"
    file.write_text("user:secret")
    file.chmod(0o600)
    assert user_files.read_credentials(file).reveal() == "user:secret\n"
    file.chmod(0o640)
    with pytest.raises(CredentialsError, match=r"mode 0640"):
        user_files.read_credentials(file)
    file.chmod(0o600)
    uid = os.getuid() if os.getuid() else 1
    os.chown(file, uid, -1)
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    with pytest.raises(CredentialsError, match="belong to another user"):
        user_files.read_credentials(file)
