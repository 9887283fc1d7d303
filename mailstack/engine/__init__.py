"""The Docker engine and Compose. Only this package uses the Docker SDK."""
