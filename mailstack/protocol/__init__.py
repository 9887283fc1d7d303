"""The protocols: SMTP and IMAP clients, reply codes, transcripts."""
