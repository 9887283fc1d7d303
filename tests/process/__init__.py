"""Tests that start processes, or the command itself, and need no Docker engine."""
