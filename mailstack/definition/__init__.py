"""Compose files to a Lab: the bundled files, the `x-mailstack` block, the place of a mistake."""
