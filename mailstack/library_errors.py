"""Map the errors of libraries to errors of mailstack, class by class. Each room that uses a library has a table.

A class is written as `module.Class`, since libraries are imported late. An error in no table (a full disk, or a bug in
mailstack) passes unchanged and is reported as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

Make = Callable[[Exception], Exception]


class Table:
    """A map from a library's error classes to errors of mailstack; the nearest base class in the table decides."""

    def __init__(self, kinds: Mapping[Make, Iterable[str]]) -> None:
        self._makes = {name: make for make, names in kinds.items() for name in names}

    @property
    def names(self) -> frozenset[str]:
        """The classes in the table."""
        return frozenset(self._makes)

    def of(self, error: Exception) -> Exception | None:
        """Return the error of mailstack for a library's error; None for a class that is not in the table."""
        for kind in type(error).__mro__:
            if make := self._makes.get(f"{kind.__module__}.{kind.__qualname__}"):
                return make(error)
        return None


def named(module: str, classes: str) -> list[str]:
    """Return `module.Class` for each class name in a space-separated list."""
    return [f"{module}.{name}" for name in classes.split()]


# ── the Docker SDK, and what is below it ─────────────────────────────────────────────────────────────────────────

DOCKER_REFUSED = [
    *named("docker.errors", "APIError NotFound ImageNotFound BuildError ImageLoadError ContainerError"),
    "mailstack.engine.unix_connection.Refused",
]
# An address, a setting or a file of Docker is unusable.
DOCKER_UNUSABLE = [
    *named("docker.errors", "DockerException InvalidVersion InvalidRepository InvalidConfigFile InvalidArgument"),
    *named("docker.errors", "DeprecatedMethod TLSParameterError NullResource StreamParseError MissingContextParameter"),
    *named("docker.errors", "ContextAlreadyExists ContextException ContextNotFound"),
    *named("docker.credentials.errors", "StoreError CredentialsNotFound InitializationError"),
    *named("requests.exceptions", "URLRequired MissingSchema InvalidSchema InvalidURL InvalidHeader InvalidProxyURL"),
    *named("requests.exceptions", "SSLError ProxyError"),
    *named("urllib3.exceptions", "LocationValueError LocationParseError URLSchemeUnknown InvalidHeader SSLError"),
    *named("urllib3.exceptions", "ProxyError ProxySchemeUnknown ProxySchemeUnsupported"),
]
# No server answers, or it stops answering, or it speaks another protocol.
DOCKER_SILENT = [
    *named(
        "requests.exceptions", "RequestException InvalidJSONError JSONDecodeError HTTPError ConnectionError Timeout"
    ),
    *named("requests.exceptions", "ConnectTimeout ReadTimeout TooManyRedirects ChunkedEncodingError RetryError"),
    *named("requests.exceptions", "ContentDecodingError StreamConsumedError UnrewindableBodyError"),
    *named("urllib3.exceptions", "HTTPError PoolError RequestError DecodeError ProtocolError MaxRetryError"),
    *named("urllib3.exceptions", "HostChangedError TimeoutStateError TimeoutError ReadTimeoutError NewConnectionError"),
    *named("urllib3.exceptions", "ConnectTimeoutError NameResolutionError EmptyPoolError FullPoolError"),
    *named("urllib3.exceptions", "ClosedPoolError ResponseError ResponseNotChunked BodyNotHttplibCompatible"),
    *named("urllib3.exceptions", "IncompleteRead InvalidChunkLength HeaderParsingError UnrewindableBodyError"),
    *named("http.client", "HTTPException NotConnected InvalidURL UnknownProtocol UnknownTransferEncoding"),
    *named("http.client", "UnimplementedFileMode IncompleteRead ImproperConnectionState CannotSendRequest"),
    *named("http.client", "CannotSendHeader ResponseNotReady BadStatusLine LineTooLong RemoteDisconnected"),
    *named("docker.utils.socket", "SocketError"),
    "mailstack.engine.unix_connection.Silent",
    # From a connection that the SDK returns as a socket. Files raise other classes.
    *named("builtins", "ConnectionError TimeoutError"),
]

# ── SMTP and IMAP ────────────────────────────────────────────────────────────────────────────────────────────────

SMTP_REFUSED = [
    *named("smtplib", "SMTPResponseException SMTPSenderRefused SMTPDataError SMTPHeloError SMTPAuthenticationError"),
    *named("smtplib", "SMTPConnectError"),
]
SMTP_RECIPIENTS = named("smtplib", "SMTPRecipientsRefused")
SMTP_BROKEN = [
    *named("smtplib", "SMTPException SMTPNotSupportedError SMTPServerDisconnected"),
    # Only from the connection: nothing else is read or written during the submission of a mail.
    *named("ssl", "SSLError SSLZeroReturnError SSLWantReadError SSLWantWriteError SSLSyscallError SSLEOFError"),
    *named("ssl", "SSLCertVerificationError"),
    *named("socket", "gaierror herror"),
    *named("builtins", "OSError"),
]
IMAP_LOST = named("imaplib", "IMAP4.abort")
IMAP_LOGIN = named("imap_tools.errors", "MailboxLoginError")
IMAP_REFUSED = [
    *named("imaplib", "IMAP4.error IMAP4.readonly"),
    *named("imap_tools.errors", "ImapToolsError MailboxFolderStatusValueError UnexpectedCommandStatusError"),
    *named("imap_tools.errors", "MailboxFolderSelectError MailboxFolderUnselectError MailboxFolderCreateError"),
    *named("imap_tools.errors", "MailboxFolderRenameError MailboxFolderDeleteError MailboxFolderStatusError"),
    *named("imap_tools.errors", "MailboxFolderSubscribeError MailboxLogoutError MailboxNumbersError MailboxUidsError"),
    *named("imap_tools.errors", "MailboxStarttlsError MailboxFetchError MailboxExpungeError MailboxDeleteError"),
    *named("imap_tools.errors", "MailboxCopyError MailboxMoveError MailboxFlagError MailboxAppendError"),
    *named("imap_tools.errors", "MailboxTaggedResponseError"),
]

# ── SSH ──────────────────────────────────────────────────────────────────────────────────────────────────────────

SSH = [
    *named("paramiko.ssh_exception", "SSHException AuthenticationException PasswordRequiredException"),
    *named("paramiko.ssh_exception", "BadAuthenticationType PartialAuthentication UnableToAuthenticate"),
    *named("paramiko.ssh_exception", "ChannelException BadHostKeyException IncompatiblePeer ProxyCommandFailure"),
    *named("paramiko.ssh_exception", "NoValidConnectionsError MessageOrderError"),
    # Only from the connection: nothing else is read or written while it is used.
    *named("builtins", "EOFError ConnectionError TimeoutError"),
    *named("socket", "gaierror herror"),
]
# ~/.ssh/config and known_hosts.
SSH_SETTINGS = [
    *named("paramiko.ssh_exception", "CouldNotCanonicalize ConfigParseError"),
    *named("paramiko.hostkeys", "InvalidHostKey"),
    *named("fabric.exceptions", "InvalidV1Env NothingToDo"),
]
