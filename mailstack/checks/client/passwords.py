"""Verdicts on the map of passwords: its files, and the user and the password in it."""

from __future__ import annotations

from mailstack.checks.client.facts import SUFFIXES, Facts, Login, PasswordMap
from mailstack.checks.client.finding import RELOAD, Finding, setting
from mailstack.checks.client.relay import relayhost

TEXT = "/etc/postfix/sasl_passwd"


def maps(facts: Facts) -> Finding:
    """Judge the tables that smtp_sasl_password_maps names: each can be read, and by root alone."""
    shown = ", ".join(table.name for table in facts.maps)
    if not facts.maps:
        problem = "no table of passwords: Postfix's client ends as soon as it is to log in"
        return Finding("", problem, setting(f"smtp_sasl_password_maps = hash:{TEXT}"))
    for judge in (_unusable, _exposed):
        for table in facts.maps:
            problem, remedy = judge(facts, table)
            if problem:
                return Finding(shown, problem, remedy)
    note = "another table than the course's; Postfix can read it, and others than root cannot read the password"
    return Finding(shown, note="" if shown == f"hash:{TEXT}" else note)


def _unusable(facts: Facts, table: PasswordMap) -> tuple[str, str]:
    """Return why a table does not say what its text does, and what to do."""
    if table.type not in facts.types:
        problem = f"this Postfix has no tables of the type “{table.type}” (postconf -m)"
        return problem, setting(f"smtp_sasl_password_maps = hash:{table.path}")
    if table.type not in (*SUFFIXES, "texthash"):
        return "", ""
    if not table.text and not (table.indexed and table.index):
        return f"there is no {table.path}", _written(facts, table)
    if table.indexed and not table.index:
        return f"it is not hashed: there is no {table.file}", f"sudo postmap {table.name}; {RELOAD}"
    if table.stale:
        return f"{table.path} is newer than {table.file}: not hashed since", f"sudo postmap {table.name}; {RELOAD}"
    return "", ""


def _exposed(facts: Facts, table: PasswordMap) -> tuple[str, str]:
    """Return who else can read a table, and what to do."""
    if table.exposed:
        mode, owner, path = table.exposed.split(" ", 2)
        files = " ".join(dict.fromkeys((table.path, table.file)))
        problem = f"others than root can read the password: {path} has the mode {mode} and belongs to {owner}"
        return problem, f"sudo chmod 600 {files}"
    return "", ""


def credentials(facts: Facts) -> Finding:
    """Judge the user and the password that are found for relayhost, without showing the password.

    A map that cannot be read, or is asked for another relayhost, says nothing of them: that has to be repaired first.
    """
    shown = f"{facts.key} {facts.login_user}:…" if facts.login is not Login.MISSING else ""
    problem = {
        Login.MISSING: f"no user and password for {facts.setting('relayhost') or 'relayhost'}: the key has to be "
        "relayhost, to the letter",
        Login.WRONG_PASSWORD: f"the password of {facts.login_user} is wrong (535)",
        Login.UNKNOWN_USER: f"the provider has no user {facts.login_user} (535)",
        Login.NOT_OWNER: f"{facts.login_user} is somebody else: the provider refuses mail from {facts.student} (553)",
    }.get(facts.login, "")
    if not problem:
        return Finding(shown)
    for table in facts.maps:
        if (unusable := _unusable(facts, table))[0]:
            return Finding(shown, "cannot be judged before smtp_sasl_password_maps is right: see there", unusable[1])
    if facts.login is Login.MISSING and (hop := relayhost(facts)).problem:
        return Finding("", "cannot be judged before relayhost is right: see there", hop.remedy)
    return Finding(shown, problem, _written(facts, facts.maps[0] if facts.maps else PasswordMap("hash", TEXT)))


def _written(facts: Facts, table: PasswordMap) -> str:
    """Return how the user and the password are written into a table."""
    shown = "" if facts.outside else f" (`{facts.user}` shows both)"
    made = f"sudo postmap {table.name}; " if table.indexed else ""
    return f"write `{key(facts)} USER:PASSWORD`{shown}; sudo nano {table.path}; {made}{RELOAD}"


def key(facts: Facts) -> str:
    """Return the key that the map needs: relayhost if that is right."""
    right = facts.reaches_provider and facts.next_hop.brackets
    return facts.setting("relayhost") if right else f"[{facts.provider}]:{facts.port}"
