"""Accounts that are added to a running lab are stored where Dovecot and Postfix find them."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from mailstack.actions.accounts import Accounts
from mailstack.actions.queue_watch import QueueWatch
from mailstack.config import files, render
from mailstack.errors import InputError
from mailstack.model import UNLIMITED, Account, Domain, Lab
from mailstack.secret import Secret
from mailstack.testing import MailboxFactory

LAB = Lab("example.com", (Domain("example.com"),), (Account("alice@example.com"),))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    files.write(tmp_path, files.desired(tmp_path, LAB))
    return tmp_path


@pytest.mark.parametrize("quota", [None, UNLIMITED, 5 * 1024**2])
def test_an_account_s_line_is_read_as_it_was_written(quota: int | None) -> None:
    account = Account("dora@example.com", quota)
    assert render.account_of(render.account_line(account, Secret("a:b")).reveal()) == account


def test_an_added_account_is_a_file_of_its_own_that_nobody_else_may_read(directory: Path) -> None:
    files.add(directory, {Account("dora@example.com", 4096): Secret("hers")})
    path = directory / "added" / "dora@example.com"
    assert path.read_text() == "dora@example.com:{PLAIN}hers::::::userdb_quota_storage_size=4096B\n"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_what_postfix_is_told_has_no_password_in_it(directory: Path) -> None:
    files.add(directory, {Account("dora@example.com"): Secret("hers")})
    assert (directory / "addresses").read_text() == "dora@example.com dora@example.com\n"


def test_added_accounts_stay_when_the_definition_is_written_again(directory: Path) -> None:
    files.add(directory, {Account("dora@example.com"): Secret("hers")})
    files.write(directory, files.desired(directory, LAB))
    assert files.added(directory) == [Account("dora@example.com")]
    assert files.passwords(directory)["dora@example.com"].reveal() == "hers"


def test_an_account_that_is_removed_leaves_nothing(directory: Path) -> None:
    for name in ("dora", "erik"):
        files.add(directory, {Account(f"{name}@example.com"): Secret(name)})
    files.remove(directory, {"dora@example.com"})
    assert [account.address for account in files.added(directory)] == ["erik@example.com"]
    assert "dora" not in (directory / "addresses").read_text()
    assert "dora@example.com" not in files.passwords(directory)


def test_an_account_with_an_apostrophe_is_written_as_dovecot_looks_for_it_and_read_back(directory: Path) -> None:
    account = Account("o'brien@example.com", 4096)
    files.add(directory, {account: Secret("his")})
    assert (directory / "added" / "o'brien@example.com").read_text().startswith("o\\'brien@example.com:{PLAIN}his:")
    assert files.added(directory) == [account]
    assert files.passwords(directory)["o'brien@example.com"].reveal() == "his"
    assert (directory / "addresses").read_text() == "o'brien@example.com o'brien@example.com\n"


@pytest.mark.parametrize(
    "name", ["/tmp/zz@example.com", "../zz@example.com", "a/../../zz@example.com", "..", "", "a@b/c"]
)
def test_no_name_becomes_a_path(directory: Path, name: str) -> None:
    def there() -> set[Path]:
        return {*directory.parent.rglob("*"), *Path("/tmp").glob("zz*")}

    before = there()
    for act in (
        lambda: files.add(directory, {Account(name): Secret("x")}),
        lambda: files.remove(directory, [name]),
        lambda: files.is_added(directory, name),
    ):
        with pytest.raises(InputError):
            act()
    assert there() == before


def test_passwords_of_added_accounts_are_blotted_out_too(directory: Path) -> None:
    files.add(directory, {Account("dora@example.com"): Secret("hers-and-hers-alone")})
    assert "hers-and" not in files.blot(directory, "it was hers-and-hers-alone")


def test_every_secret_of_a_lab_is_blotted_out_the_user_s_own_and_private_keys_too(directory: Path) -> None:
    files.write(directory, files.desired(directory, LAB, outside=Secret("someone@example.net:my own & secret\n")))
    relay = files.read_relay(directory)
    keys = [line for name in files.SERVER_NAMES for line in (directory / f"{name}.pem").read_text().splitlines()]
    key = keys[1 : next(n for n, line in enumerate(keys) if line.startswith("-----END"))]
    assert relay and len(key) >= 2
    said = ["my own & secret", "my%20own%20%26%20secret", "my own &amp; secret", relay[1].reveal(), *key[:2]]
    blotted = files.blot(directory, f"the relay said 535 {' and '.join(said)}")
    assert blotted == f"the relay said 535 {' and '.join(['••••••'] * len(said))}"
    certificate = (directory / "ca.pem").read_text()
    assert files.blot(directory, certificate) == certificate


def test_a_change_that_is_taken_back_leaves_the_added_accounts(directory: Path) -> None:
    files.add(directory, {Account("dora@example.com"): Secret("hers")})
    before = files.snapshot(directory)
    (directory / "mailboxes").write_text("something else")
    files.restore(directory, before)
    assert files.added(directory) == [Account("dora@example.com")]
    assert files.snapshot(directory) == before


def test_accounts_that_others_add_and_remove_meanwhile_are_passed_over(directory: Path) -> None:
    for name in ("dora", "erik"):
        files.add(directory, {Account(f"{name}@example.com"): Secret(name)})
    # One whose file goes between the listing and the reading, and one whose line is still to be written.
    (directory / "added" / "gone@example.com").symlink_to(directory / "nowhere")
    (directory / "added" / "coming@example.com").touch()
    there = ["dora@example.com", "erik@example.com"]
    assert [account.address for account in files.added(directory)] == there
    assert set(there) < set(files.passwords(directory))
    assert not {"", "gone@example.com", "coming@example.com"} & set(files.passwords(directory))


def test_a_mailbox_is_made_without_a_look_at_those_that_were_made_before(directory: Path) -> None:
    """What it costs does not grow with the tests of a suite."""

    class Running:
        name, defined = "lab", LAB

        @property
        def definition(self) -> Lab:
            raise AssertionError("every account was read")

    class Adding:
        lab = Running()

        def add(self, address: str, **how: object) -> Secret:
            return Secret(address)

    factory = MailboxFactory(cast(Accounts, Adding()), "test", queues=cast(QueueWatch, None))
    assert factory("dora").address.endswith("@example.com")
