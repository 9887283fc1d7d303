"""Other credentials for a while, in the map of passwords that is in effect on the sender."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from mailstack.checks.client.facts import PasswordMap
from mailstack.engine.engine import Engine
from mailstack.errors import HostError

# Arguments: type of the map, path of its text, the file that Postfix reads, and its suffix. The text of the other map
# is the first part of the input, up to a line with a dot. Prints `ready` once the other map is in effect, and restores
# the first one at the next line, or when the input ends: the engine closes it when mailstack is killed.
# An index is replaced by rename(2), and its text is never touched: Postfix's daemons end when the index that they have
# open is no longer there (dict_changed_name). A text that is itself the map (texthash) is changed in place, so that it
# keeps its owner. Daemons read it when they start: they get SIGHUP, as by `postfix reload`, and the old clients end.
_SWAP = r"""
set -eu
type=$1 file=$3 suffix=$4
umask 077
renew() {
    read -r master < /var/spool/postfix/pid/master.pid
    old=
    for process in $(cat /proc/$master/task/$master/children); do
        if [ "$(cat /proc/$process/comm 2> /dev/null)" = smtp ]; then old="$old $process"; fi
    done
    kill -HUP $master
    for process in $old; do timeout 5 tail --pid=$process -s 0.02 -f /dev/null || true; done
}
place=$(mktemp -d "$(dirname "$2")/.check-XXXXXX")
restore() {
    trap '' HUP INT TERM PIPE
    if [ -e "$place/kept" ]; then
        if [ "$suffix" ]; then
            mv -f "$place/kept" "$file"
        else
            cat "$place/kept" > "$file"
            touch -r "$place/kept" "$file"
            renew
        fi
    fi
    rm -rf "$place"
}
trap restore EXIT
trap 'exit 1' HUP INT TERM PIPE
while IFS= read -r line && [ "$line" != . ]; do printf '%s\n' "$line"; done > "$place/map"
[ ! "$suffix" ] || postmap "$type:$place/map"
cp --preserve=mode,timestamps "$file" "$place/copy"
mv "$place/copy" "$place/kept"
if [ "$suffix" ]; then
    chmod --reference="$file" "$place/map$suffix"
    mv -f "$place/map$suffix" "$file"
else
    cat "$place/map" > "$file"
    renew
fi
echo ready
IFS= read -r line || true
restore
trap - EXIT
echo restored
"""


def is_possible(table: PasswordMap) -> bool:
    """Whether a map is in a file that can be replaced for a while."""
    return table.type == "texthash" or (table.indexed and table.index)


@contextmanager
def swapped(engine: Engine, container: str, table: PasswordMap, line: str) -> Iterator[None]:
    """Have other credentials in effect within `with`: `key user:password`, or "" for none. Raises HostError."""
    suffix = table.file.removeprefix(table.path)
    argv = ["sh", "-c", _SWAP, "sh", table.type, table.path, table.file, suffix]
    with closing(engine.stream(container, argv)) as stream:
        stream.settimeout(_SECONDS)
        reader = stream.makefile("rb")
        stream.sendall(f"{line}\n.\n".encode() if line else b".\n")
        if reader.readline() != b"ready\n":
            raise HostError(f"{table.name} on the sender could not be replaced for the check")
        try:
            yield
        finally:
            stream.sendall(b"restore\n")
            if reader.readline() != b"restored\n":
                raise HostError(
                    f"{table.name} on the sender could not be restored after the check",
                    remedy=f"sudo postmap {table.name}; sudo postfix reload",
                )


_SECONDS = 20.0
