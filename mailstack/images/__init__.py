"""The container images: base, build, and transfer between engines."""
