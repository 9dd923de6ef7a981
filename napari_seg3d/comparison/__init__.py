"""Labels against truth: overlap, surfaces, where they disagree, baselines, tables and figures. No torch, no Qt."""
