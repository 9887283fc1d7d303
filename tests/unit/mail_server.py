"""A mail server in threads, with one mailbox: submission with STARTTLS and AUTH, IMAP with and without TLS."""

from __future__ import annotations

import contextlib
import socketserver
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# Time limit for each line of a client, in seconds.
_SECONDS = 10.0


@dataclass
class MailServer:
    """The replies of a server, and its mails. `ports` has the port of each of its listeners."""

    context: ssl.SSLContext
    starttls: bool = True
    auth: str = "235 2.7.0 welcome"
    silent: int = 0  # connections that are closed before a greeting
    mails: list[bytes] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)  # commands of SMTP
    ports: dict[str, int] = field(default_factory=dict)


class _Session(socketserver.StreamRequestHandler):
    timeout = _SECONDS
    disable_nagle_algorithm = True

    def __init__(self, mail: MailServer, tls: bool, *listened: object) -> None:
        self.mail, self.tls = mail, tls
        super().__init__(*listened)  # type: ignore[arg-type]

    def handle(self) -> None:
        """Talk to a client until it says goodbye or leaves."""
        if self.mail.silent:
            self.mail.silent -= 1
            return
        with contextlib.suppress(OSError):
            if self.tls:
                self.secure()
            self.talk()

    def finish(self) -> None:
        """Close the files and the connection, whether the client is there or not."""
        for each in (self.wfile, self.rfile, self.request):
            with contextlib.suppress(OSError):
                each.close()

    def secure(self) -> None:
        """Go on with TLS (RFC 3207)."""
        self.request = self.mail.context.wrap_socket(self.request, server_side=True)
        self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", 0)
        self.tls = True

    def say(self, *lines: str) -> None:
        """Send lines."""
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    def talk(self) -> None:
        """Answer the client's commands."""
        raise NotImplementedError


class _Smtp(_Session):
    def talk(self) -> None:
        self.say("220 relay.test ESMTP")
        while line := self.rfile.readline().decode().strip():
            self.mail.heard.append(line)
            match line.split()[0].upper():
                case "EHLO":
                    secure = "250-AUTH PLAIN" if self.tls else "250-STARTTLS" if self.mail.starttls else "250-HELP"
                    self.say("250-relay.test", secure, "250 8BITMIME")
                case "STARTTLS":
                    self.say("220 go on")
                    self.secure()
                case "AUTH":
                    self.say(self.mail.auth)
                case "DATA":
                    self.say("354 go on")
                    self.mail.mails.append(b"".join(iter(self.rfile.readline, b".\r\n")))
                    self.say("250 2.0.0 taken")
                case "QUIT":
                    self.say("221 bye")
                    return
                case _:
                    self.say("250 2.1.0 ok")


class _Imap(_Session):
    def talk(self) -> None:
        self.say("* OK ready")
        while line := self.rfile.readline().decode().strip():
            tag, command = line.replace(" UID ", " ", 1).split()[:2]
            self._answer(command.upper(), line)
            self.say(f"{tag} OK done")
            if command.upper() == "LOGOUT":
                return

    def _answer(self, command: str, line: str) -> None:
        mails = self.mail.mails
        match command:
            case "CAPABILITY":
                self.say("* CAPABILITY IMAP4rev1")
            case "SELECT" | "NOOP":
                self.say(f"* {len(mails)} EXISTS")
            case "SEARCH":
                if "OLDER" in line:  # all mails are of this minute
                    self.say("* SEARCH")
                    return
                wanted = line.partition("<")[2].partition(">")[0].encode()
                self.say(" ".join(["* SEARCH", *(str(n) for n, mail in enumerate(mails, 1) if wanted in mail)]))
            case "FETCH":
                for number, mail in enumerate(mails, 1):
                    self.say(f"* {number} FETCH (UID {number} FLAGS () RFC822.SIZE {len(mail)} BODY[] {{{len(mail)}}}")
                    self.wfile.write(mail + b")\r\n")
            case "EXPUNGE":
                mails.clear()
                self.say("* 1 EXPUNGE")
            case "LOGOUT":
                self.say("* BYE")


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True


@contextlib.contextmanager
def serving(pem: Path) -> Iterator[MailServer]:
    """Serve on free ports of 127.0.0.1, with the key and the certificates in a file; end with all threads ended."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    mail = MailServer(context)
    kinds = {
        "submission": (_Smtp, False),
        "submissions": (_Smtp, True),
        "imap": (_Imap, False),
        "imaps": (_Imap, True),
    }
    with contextlib.ExitStack() as stack:
        for name, (kind, tls) in kinds.items():

            def session(*listened: object, kind: type[_Session] = kind, tls: bool = tls) -> _Session:
                return kind(mail, tls, *listened)

            listener = stack.enter_context(_Listener(("127.0.0.1", 0), session))
            mail.ports[name] = listener.server_address[1]
            thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(listener.shutdown)
        yield mail
