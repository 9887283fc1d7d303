"""The container images: base, build, versions, and transfer between engines."""
