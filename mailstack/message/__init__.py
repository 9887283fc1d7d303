"""A mail as bytes: header fields, MIME parts, HTML, attachments."""
