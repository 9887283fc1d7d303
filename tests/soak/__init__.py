"""Zero loss: every mail that was answered with 250 arrives, under kills, pauses and disconnects.

`python -m tests.soak --seeds 1 2 3 --mails 15000` runs it; the same seeds make the same disturbances.
"""
