"""mailstack's own directories and files: private, marked, never reached through a symbolic link; and their locks."""
