"""mailstack's own directories and files: private, marked, never followed through a symbolic link; and their locks."""
