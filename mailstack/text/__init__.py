"""Words for people: durations, addresses, and the command lines that messages suggest."""
