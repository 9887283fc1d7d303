"""Store and forward: mail waits where it is until the next station is there. Stops Dovecot, so it runs alone."""

from __future__ import annotations

import re

from mailstack.checks import Family, Turn, expect
from mailstack.checks.bench import ARRIVAL_SECONDS, Bench
from mailstack.model import Deadline

family = Family("queue", Turn.ALONE)


@family(
    "dovecot-stopped",
    "with Dovecot stopped a mail waits in Postfix, and arrives once after a flush",
    "RFC 5321, section 4.5.4.1; postqueue(1)",
)
def _(bench: Bench) -> str:
    message = bench.message([bench.bob])
    # SASL is Dovecot's: who is to submit while it is stopped has to log in before.
    with bench.logged_in(587, bench.alice) as session:
        bench.engine.stop(bench.container("dovecot"))
        try:
            session.mail(bench.alice)
            session.rcpt(bench.bob)
            code, reply = session.data(message.as_bytes())
            text = reply.decode(errors="replace")
            expect(code == 250, f"with Dovecot stopped: {code} {text}")
            queue_id = text.rpartition(" ")[2]
            deferred = re.compile(rf"]: {queue_id}: to=<.* status=deferred ")
            put_off = any(deferred.search(line) for line in bench.heard("postfix"))
            expect(put_off, f"{queue_id} is not deferred in Postfix's queue")
            waiting = bench.waiting("postfix", queue_id)
        finally:
            bench.engine.start(bench.container("dovecot"))
            # Each smtpd(8) keeps a connection to Dovecot for SASL; those of before are dead, and would cost a 454 each.
            bench.engine.signal(bench.container("postfix"), "SIGHUP")
    _until_it_listens(bench)
    bench.flush(waiting)
    found = bench.found(bench.bob, str(message["Message-ID"]), ARRIVAL_SECONDS)
    expect(len(found) == 1, f"after the flush: {len(found)} copies for {bench.bob}")
    return f"{queue_id} waited: {waiting.recipients[0].reason}; then 1 copy"


def _until_it_listens(bench: Bench) -> None:
    """Wait until Dovecot, started again, takes connections on all its ports."""
    deadline = Deadline.after(ARRIVAL_SECONDS)
    while bench.engine.execute(bench.container("dovecot"), ["healthcheck"]).code != 0:
        expect(not deadline.passed(), f"Dovecot does not listen {deadline.seconds:g} s after its start")
