"""The life of a lab: up, proven, leased, guarded, down."""
