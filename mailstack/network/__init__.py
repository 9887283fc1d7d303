"""Ports and subnets of a host: which are free."""
