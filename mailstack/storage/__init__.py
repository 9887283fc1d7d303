"""Directories and files of mailstack's own: private, marked, never reached through a symbolic link."""
