"""The corpus of journeys: mails that were sent through labs, what the servers logged, and what really became of them.

`python -m tests.journeys [NAME…]` makes it anew, in tests/data/journeys: for each NAME

NAME.log (or .log.gz)   what the services logged, in the order of time: `SERVICE | TIME LINE`
NAME.json               what happened, as it is known without the logs

    about       what this is
    fault       the id of the known failure that the log tells of, or null
    messages    each with `message_id`, `from`, `recipients` (address → delivered, waiting, held, bounced or rejected),
                `status` (that of all recipients, or `partly`), `mailboxes` (address → copies seen over IMAP), `notices`
                (Message-IDs of the bounces seen in its sender's mailbox) and `query`, by which it is to be found: its
                Message-ID, or, of a mail that was refused before it had one, its recipient
"""
