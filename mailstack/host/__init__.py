"""The machine that has, or is to have, an engine: its requirements, and how it is provisioned."""
