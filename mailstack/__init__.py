"""A mail lab in containers: real Postfix, real Dovecot and a sender, up and proven within a second or two."""

__version__ = "0.1.0"
