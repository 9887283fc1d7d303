"""Actions on a running lab: send, reply, read, inspect queues, trace, manage accounts."""
