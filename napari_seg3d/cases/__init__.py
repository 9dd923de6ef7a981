"""What one learns from: cases, datasets, label schemes, made-up studies."""
