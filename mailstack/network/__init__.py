"""Free ports and subnets of a host."""
