"""Sustained load: many mails over parallel connections, with an account of each mail."""
