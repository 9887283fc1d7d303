"""Text for users: durations, printable text, command lines in messages; and the rules for mail addresses."""
