"""Store and forward: a mail stays in the queue until the next hop is up. Stops Dovecot, so it runs alone."""

from __future__ import annotations

import re

from mailstack.checks import Concurrency, Family
from mailstack.checks.bench import ARRIVAL_SECONDS, Bench
from mailstack.checks.deliveries import count_arrived, flush, queue_entry
from mailstack.checks.judging import expect
from mailstack.checks.listeners import wait_until_healthy
from mailstack.roles import Role

family = Family("queue", Concurrency.EXCLUSIVE)


@family(
    "dovecot-stopped",
    "with Dovecot stopped a mail waits in Postfix, and arrives once after a flush",
    "RFC 5321, section 4.5.4.1; postqueue(1)",
)
def mail_waits_for_dovecot(bench: Bench) -> str:
    message = bench.message([bench.bob])
    # Dovecot is the SASL server, so the client logs in before Dovecot stops.
    with bench.logged_in(587, bench.alice) as session:
        bench.engine.stop(bench.container(Role.STORE))
        try:
            session.mail(bench.alice)
            session.rcpt(bench.bob)
            code, reply = session.data(message.as_bytes())
            text = reply.decode(errors="replace")
            expect(code == 250, f"with Dovecot stopped: {code} {text}")
            queue_id = text.rpartition(" ")[2]
            deferred = re.compile(rf"]: {queue_id}: to=<.* status=deferred ")
            logged = any(deferred.search(line) for line in bench.log(Role.SUBMISSION))
            expect(logged, f"{queue_id} is not deferred in Postfix's queue")
            entry = queue_entry(bench, Role.SUBMISSION, queue_id)
        finally:
            bench.engine.start(bench.container(Role.STORE))
            # Each smtpd(8) keeps a connection to Dovecot for SASL. The old connections are dead: each would cause a
            # reply 454.
            bench.engine.signal(bench.container(Role.SUBMISSION), "SIGHUP")
    healthy = wait_until_healthy(bench.engine, bench.container(Role.STORE), ARRIVAL_SECONDS)
    expect(healthy, f"Dovecot did not listen within {ARRIVAL_SECONDS:g} s of its start")
    flush(bench, entry)
    copies = count_arrived(bench, bench.bob, str(message["Message-ID"]), ARRIVAL_SECONDS)
    expect(copies == 1, f"after the flush: {copies} copies for {bench.bob}")
    return f"{queue_id} was deferred: {entry.recipients[0].reason}; 1 copy after the flush"
