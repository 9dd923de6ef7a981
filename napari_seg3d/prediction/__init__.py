"""Model and case -> labels."""
