"""Known failures of the host itself: lookup tables and disk."""

from __future__ import annotations

from mailstack.failures.entry import known_failure

ENTRIES = (
    known_failure(
        "map-missing",
        "a lookup table's file is not there",
        cause="main.cf names a table that does not exist: `postmap` was not run, or its type or path is different",
        remedy="run postmap TYPE:FILE, with type and file as main.cf names them (`postconf -n`), then postqueue -f",
        source="postmap(1); Postfix DATABASE_README",
        pattern=r"open (database )?\S+: No such file or directory|is unavailable\. open ",
    ),
    known_failure(
        "map-stale",
        "a lookup table is older than its source",
        cause="the text file was changed, but `postmap` was not run afterwards: Postfix still uses the old entries",
        remedy="run postmap on the file that the line names",
        source="postmap(1); Postfix DATABASE_README",
        pattern=r"database \S+ is older than source file",
    ),
    known_failure(
        "lookup-failed",
        "a table could not be read, so the mail waits",
        cause="a lookup table or the server behind it failed; the log's warning just before this line names it",
        remedy="repair the table that the warning names (`postmap -q KEY TYPE:FILE` tries it), then postqueue -f",
        source="Postfix DATABASE_README; postconf(5)",
        pattern=r"\blookup error\b|local data error while talking to|Server local data error|Temporary lookup failure",
    ),
    known_failure(
        "no-space",
        "the server has too little room for mail",
        cause="the file system of its queue is full, or has less free space than queue_minfree requires",
        remedy="make room (`df -h`, `postqueue -p`); clients try again by themselves",
        source="RFC 5321, section 4.2.3 (452); postconf(5), queue_minfree",
        pattern=r"\b452[ -]4\.3\.1\b|(?i:insufficient system storage)|not enough free space in mail queue"
        r"|No space left on device",
    ),
)
