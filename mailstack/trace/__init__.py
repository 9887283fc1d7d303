"""The journey of a message, from log lines: pure functions of text, for any Postfix and Dovecot.

`lines` takes a log line apart, `events` says what happened in it, `collect` picks the lines of a message out of logs
of any length, `stations` and `outcomes` say what happened at each MTA, `assemble` makes journeys of that, and `journey`
judges each.
"""
