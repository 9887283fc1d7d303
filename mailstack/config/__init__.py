"""A Lab to what its containers are handed: credentials, tables, certificates."""
