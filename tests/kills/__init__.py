"""The kill matrix: commands that work on a lab are ended by signals at random moments; then the lab is verified.

`python -m tests.kills --seed N --trials M` runs it; the same seed makes the same trials.
"""
