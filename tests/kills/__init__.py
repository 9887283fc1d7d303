"""The kill matrix: every command that changes a lab is ended by every signal, at random moments.

`python -m tests.kills --seed N --trials M` runs it; the same seed makes the same trials.
"""
