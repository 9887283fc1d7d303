"""Versions of packages, read from dpkg's status file."""

from __future__ import annotations

from mailstack.images import versions

STATUS = """\
Package: postfix
Status: install ok installed
Description: mail server
 Version: 0 is a line of this text
Version: 3.10.13-0+deb13u1

Package: postfix-lmdb
Version: 1
"""


def test_a_package_s_version_is_its_own_field() -> None:
    assert versions.installed(STATUS, "postfix") == "3.10.13-0+deb13u1"
    assert versions.installed(STATUS, "dovecot-core") == ""
