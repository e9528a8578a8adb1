"""One HTTP request: endpoint, sessions, encoding, errors, retry, redaction, storage."""
