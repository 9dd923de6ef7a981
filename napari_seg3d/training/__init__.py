"""Cases -> model."""
