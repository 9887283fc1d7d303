"""`postfix reload`, until no daemon has the old settings."""

# Each daemon ends when it is next idle, not at once. Until then, the old ones go on with the old settings and with what
# they remember, such as destinations that do not answer. One that is not idle in 4 seconds is in a session, and takes
# no other mail. Each process that reads main.cf waits until the file is two seconds old: so it is made older.
RELOAD = """
set -e
find /etc/postfix/main.cf ! -newermt now -exec touch -d '10 seconds ago' {} +
read -r master </var/spool/postfix/pid/master.pid
old=$(cat /proc/$master/task/$master/children)
kill -HUP $master
for pid in $old; do
    case $(cat /proc/$pid/comm 2>/dev/null) in
        pickup|cleanup|qmgr|smtp|smtpd|lmtp) timeout 4 tail --pid=$pid -s 0.02 -f /dev/null || true ;;
    esac
done
"""
