"""Docker hosts over SSH: addresses, login, the process that keeps a connection; the only user of Fabric."""
