"""Steps 3, 5 and 6: the first mail, from the student's terminal to the recipient's mailbox, and the answer to it."""

from __future__ import annotations

import re

from mailstack import mail, post
from mailstack.experiment.evidence import Evidence, expect
from mailstack.experiment.scene import Scene
from mailstack.experiment.step import Steps

steps = Steps()

SUBJECT = "CCN Lab"
BODY = "This is the first mail of the lab."


@steps(
    "send",
    "A mail is sent from the terminal",
    row="Step 5: the student sends a mail from the terminal: echo "
    f"“This is the first mail …” | mail -s “{SUBJECT}” RECIPIENT.",
    done=f"As the user “student” on the student's machine: echo “{BODY}” | mail -s “{SUBJECT}” RECIPIENT.",
    expected="Postfix on the student's machine takes the mail, and hands it to the provider: status=sent (250 …).",
    needs=("credentials",),
)
def _(scene: Scene, show: Evidence) -> None:
    # Without `-r`: the address that the mail is from is the system mail name's doing.
    argv = ["mail", "-s", SUBJECT, "-a", f"Message-ID: {scene.first_mail}", scene.recipient]
    done = scene.execute("sender", *argv, user=post.STUDENT, input=f"{BODY}\n".encode())
    show.text("at the terminal", f"$ echo “{BODY}” | mail -s “{SUBJECT}” {scene.recipient}\n{done.stderr}")
    expect(done.code == 0, f"`mail` ended with code {done.code}: {done.stderr.strip()}")
    lines = scene.lines("sender", scene.first_mail, "status=")
    show.text("what Postfix on the student's machine logged", "\n".join(lines))
    outcome = next(line for line in lines if "status=" in line)
    expect("status=sent" in outcome, f"not sent: {outcome.partition('status=')[2]}")


@steps(
    "tls-and-sasl",
    "The provider saw TLS and the authenticated user",
    row="Step 3: the provider's submission service on port 587 is used with authentication and TLS.",
    done="Read in the provider's log how the connection came that brought the first mail.",
    expected="The connection came to submission and encrypted before the mail was sent; the SASL user is the one in "
    "the map of credentials; the student's machine had verified the provider's certificate.",
    needs=("send",),
)
def _(scene: Scene, show: Evidence) -> None:
    lines = scene.lines("postfix", scene.first_mail, "client=")
    client = next(line for line in lines if "client=" in line)
    # The log says how a connection was secured before it says whose mail came over it: pair them by process.
    process = re.search(r"submission/smtpd\[(\d+)\]", client)
    expect(process, f"it did not come to submission: {client}")
    assert process
    before = scene.log("postfix").partition(client)[0].splitlines()
    secured = [line for line in before if f"smtpd[{process[1]}]: " in line and "TLS connection established" in line]
    show.text("what the provider logged", "\n".join([*secured[-1:], client]))
    expect(secured, "the provider logged no TLS for this connection")
    session = re.search(r"established from \S+ (TLSv\S+) with cipher (\S+)", secured[-1])
    user = re.search(r"sasl_method=(\S+), sasl_username=(\S+)", client)
    expect(user, f"nobody was authenticated: {client}")
    assert session and user
    show.table(
        "as the provider saw it",
        ("what", "seen"),
        [("TLS version", session[1]), ("cipher", session[2]), ("SASL mechanism", user[1]), ("SASL user", user[2])],
    )
    expect(user[2] == scene.relay[0], f"the SASL user was {user[2]}, the map of credentials has {scene.relay[0]}")
    client_side = [line for line in scene.log("sender").splitlines() if "TLS connection established to" in line]
    show.text("what the student's machine logged", "\n".join(client_side[-1:]))
    expect(any(": Verified TLS" in line for line in client_side), "the provider's certificate was not verified")


@steps(
    "arrive",
    "The mail is in the recipient's mailbox",
    row=f"Step 6: the student sees the mail arrive in the recipient's mailbox, subject “{SUBJECT}”.",
    done="Looked into the recipient's mailbox over IMAP until the mail was there.",
    expected=f"Exactly one copy, from the student, with the subject “{SUBJECT}” and the text that was sent.",
    needs=("send",),
)
def _(scene: Scene, show: Evidence) -> None:
    copies = scene.arrived(scene.recipient, scene.first_mail)
    found = copies[0]
    show.table(
        f"in the mailbox of {scene.recipient}",
        ("from", "to", "subject", "date", "bytes"),
        [(m.from_, ", ".join(m.to), m.subject, m.date.isoformat(), m.size_rfc822) for m in copies],
    )
    show.text("the mail", found.obj.as_bytes().decode(errors="replace").replace("\r\n", "\n"))
    expect(len(copies) == 1, f"{len(copies)} copies")
    expect(found.subject == SUBJECT, f"the subject is “{found.subject}”")
    expect(found.from_ == scene.student, f"it is from {found.from_}, not from {scene.student}")
    expect(found.text.strip() == BODY, f"the text is “{found.text.strip()}”")


@steps(
    "answer",
    "The recipient answers, and the student gets the answer",
    row="Step 6: the recipient can answer the mail.",
    done="As the recipient, submitted an answer to the first mail with the recipient's own password; "
    "looked into the student's mailbox.",
    expected="One copy of the answer in the student's mailbox, which names the first mail (In-Reply-To).",
    needs=("arrive",),
)
def _(scene: Scene, show: Evidence) -> None:
    message = mail.new_message(
        sender=scene.recipient, to=[scene.student], subject=f"Re: {SUBJECT}", body="It has arrived.\n"
    )
    message["In-Reply-To"] = message["References"] = scene.first_mail
    lab = scene.lab
    mail.submit(
        mail.to(lab.endpoints["submission"]),
        scene.trusting,
        scene.recipient,
        lab.password(scene.recipient),
        message,
        [scene.student],
    )
    copies = scene.arrived(scene.student, str(message["Message-ID"]))
    show.text("the answer", copies[0].obj.as_bytes().decode(errors="replace").replace("\r\n", "\n"))
    expect(len(copies) == 1, f"{len(copies)} copies")
    expect(copies[0].obj["In-Reply-To"] == scene.first_mail, "it does not say which mail it answers")
