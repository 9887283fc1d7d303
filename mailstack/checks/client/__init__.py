"""The sender's Postfix as a client of its relay host: what is in effect, and a verdict on each setting."""
