"""The only package that starts processes. Commands are values."""
