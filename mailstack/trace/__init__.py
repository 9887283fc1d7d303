"""The journey of a message, from log lines: pure functions of text, for any Postfix and Dovecot.

`lines` parses a log line, `events` names the event in it, and `collect` picks the lines of a message from logs of any
length. `hops` and `outcomes` find the events and results at each hop, `assemble` makes journeys of them, and
`journey` gives the verdict on each.
"""
