"""The life cycle of a lab: up, proof, leases, guard, down."""
