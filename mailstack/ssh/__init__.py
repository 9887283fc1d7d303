"""Docker hosts over SSH: addresses, login, and the daemon that keeps a connection. Only this package uses Fabric."""
