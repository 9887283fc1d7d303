"""The host of an engine: its requirements, its checks (`doctor`), and its provisioning."""
