"""What people do in a running lab: send, reply, read, look at queues, trace, add accounts."""
