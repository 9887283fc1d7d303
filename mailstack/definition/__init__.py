"""From compose files to a Lab: the bundled files, the `x-mailstack` block, and the places of mistakes."""
