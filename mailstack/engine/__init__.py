"""The Docker engine and Compose: the only user of the Docker SDK."""
