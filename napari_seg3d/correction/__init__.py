"""A label map made right."""
