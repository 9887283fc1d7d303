"""A Lab in the configuration formats of the servers."""

from __future__ import annotations

from mailstack.config import render
from mailstack.definition import destinations
from mailstack.model import Account, Alias, Domain, Lab, Relay, Settings
from mailstack.secret import Secret

LAB = Lab(
    mailname="example.com",
    domains=(Domain("example.com"), Domain("example.org", "carol@example.org")),
    accounts=(Account("alice@example.com"), Account("bob@example.com", 5 * 1024**2), Account("carol@example.org")),
    aliases=(
        Alias("team@example.com", ("alice@example.com", "bob@example.com")),
        Alias("all@example.com", ("team@example.com", "carol@example.org")),
    ),
)


def table(name: str, lab: Lab = LAB) -> list[str]:
    return render.tables(lab, "relay-1").__getitem__(name).splitlines()


def test_each_account_has_its_line_with_password_and_quota() -> None:
    text = render.accounts_file(LAB, {address: Secret(f"pw-{address}") for address in LAB.addresses()})
    assert text.reveal().splitlines() == [
        "alice@example.com:{PLAIN}pw-alice@example.com::::::",
        f"bob@example.com:{{PLAIN}}pw-bob@example.com::::::userdb_quota_storage_size={5 * 1024**2}B",
        "carol@example.org:{PLAIN}pw-carol@example.org::::::",
    ]


def test_the_accounts_file_can_be_read_back() -> None:
    passwords = {address: Secret(f"pw-{address}") for address in LAB.addresses()}
    assert render.passwords_of(render.accounts_file(LAB, passwords).reveal()) == passwords


def test_the_names_are_those_that_the_compose_file_mounts() -> None:
    from mailstack.definition.bundled import compose_file

    text = compose_file("lab.yaml").read_text()
    assert all(f"${{MAILSTACK_SECRETS}}/{name}\n" in text for name in render.tables(LAB, "relay-1"))


def test_a_catch_all_leaves_the_accounts_of_its_domain_alone() -> None:
    assert table("aliases")[-2:] == ["carol@example.org carol@example.org", "@example.org carol@example.org"]


def test_a_domain_without_a_catch_all_has_none() -> None:
    assert not any(line.startswith("@example.com") for line in table("aliases"))


def test_users_own_their_addresses_and_the_aliases_that_lead_to_them() -> None:
    owners = dict(line.split(" ", 1) for line in table("owners"))
    assert owners["alice@example.com"] == "alice@example.com, relay-1"
    assert owners["team@example.com"] == "alice@example.com, bob@example.com, relay-1"
    assert owners["@example.org"] == "relay-1"


def test_the_sender_relays_through_the_provider_in_the_lab() -> None:
    assert "relayhost = [postfix]:587" in table("sender.cf")


def test_with_a_relay_outside_the_sender_goes_there() -> None:
    outside = Lab("example.com", LAB.domains, LAB.accounts, relay=Relay("smtp.example.net", 465))
    lines = table("sender.cf", outside)
    assert "relayhost = [smtp.example.net]:465" in lines and "smtp_tls_wrappermode = yes" in lines


def test_an_overlay_wins_over_what_the_lab_says() -> None:
    lab = Lab(
        "example.com",
        LAB.domains,
        LAB.accounts,
        settings=Settings(postfix={"message_size_limit": "5", "smtp/inet/a": "b"}, dovecot="mail_debug = yes"),
    )
    lines = table("postfix.cf", lab)
    assert [line for line in lines if line.startswith("message_size_limit")] == ["message_size_limit = 5"]
    assert "smtp/inet/a = b" in lines
    assert table("dovecot.conf", lab)[-1] == "mail_debug = yes"


def test_a_mail_is_looked_for_where_the_servers_will_put_it() -> None:
    for address, boxes in {
        "alice@example.com": {"alice@example.com"},
        "Alice+tag@Example.com": {"alice@example.com"},
        "team@example.com": {"alice@example.com", "bob@example.com"},
        "all@example.com": {"alice@example.com", "bob@example.com", "carol@example.org"},
        "nobody@example.org": {"carol@example.org"},
        "nobody@example.com": set(),
        "someone@outside.test": set(),
    }.items():
        assert destinations.mailboxes(LAB, address) == boxes, address
