"""Sustained load: mails over many connections at once, and an account of each."""
