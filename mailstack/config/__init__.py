"""From a Lab to the files for its containers: credentials, tables and certificates."""
