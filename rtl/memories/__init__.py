"""Weight memories and their contract."""
