"""The wire: SMTP and IMAP clients, reply codes, transcripts."""
