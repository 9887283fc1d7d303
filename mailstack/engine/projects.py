"""The names of Compose projects. Each user of an engine has names of their own: two may both have a lab `lab`.

The owner's label tells apart whose a project is where names are the same: `root` of two machines that share an engine,
for example, or one user who has set MAILSTACK_OWNER differently.
"""

from __future__ import annotations

import functools
import os
import pwd
import re
from collections.abc import Mapping
from dataclasses import dataclass

LABEL_PROJECT = "com.docker.compose.project"

# Longest login name that becomes part of a project's name as it is. A container is called PROJECT-postfix-1, and a
# label of a host name has at most 63 characters (RFC 1035, section 2.3.4): this leaves 30 for the lab's name.
_LONGEST = 12
_SHORTENED = 6


@dataclass(frozen=True, slots=True)
class User:
    """A user of this machine."""

    uid: int
    login: str

    @property
    def prefix(self) -> str:
        """Return what comes before the names of this user's labs: `USER_`, or "" for root.

        A login name with other characters than a-z, 0-9 and single dashes, or a long one, is changed, and followed by
        `--` and the user id. No unchanged name contains `--`: no two users have one prefix.
        """
        if self.uid == 0:
            return ""
        plain = re.sub(r"[^a-z0-9]+", "-", self.login.lower()).strip("-")
        if not plain or plain != self.login or len(plain) > _LONGEST:
            plain = f"{plain[:_SHORTENED].strip('-') or 'user'}--{self.uid}"
        return f"{plain}_"


def current_user() -> User:
    """Return the user who runs this process; the variables USER and LOGNAME do not matter."""
    return _user(os.getuid())


@functools.cache
def _user(uid: int) -> User:
    try:
        return User(uid, pwd.getpwuid(uid).pw_name)
    except (KeyError, OSError):  # in a container, for example
        return User(uid, "")


def project_name(lab: str, user: User | None = None) -> str:
    """Return the name of the Compose project of a user's lab: `mailstack-LAB` for root, else `mailstack_USER_LAB`.

    Names of labs have no underscore: no project's name of one user begins as those of another one. `user` is this
    process's by default.
    """
    prefix = (user or current_user()).prefix
    return f"mailstack_{prefix}{lab}" if prefix else f"mailstack-{lab}"


def in_project(project: str, name: str, labels: Mapping[str, str]) -> bool:
    """Return whether an object is in a project: by Compose's label, or by its name if Compose did not create it."""
    if LABEL_PROJECT in labels:
        return labels[LABEL_PROJECT] == project
    return name.startswith((f"{project}_", f"{project}-"))
