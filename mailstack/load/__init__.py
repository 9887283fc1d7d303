"""Sustained load: mails over many connections at once, and the account of what became of each."""
