"""The command line: one module for each command or small family of commands."""
