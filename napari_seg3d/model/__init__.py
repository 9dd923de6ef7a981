"""What is learned: the plan, the networks, a case as a network sees it, models on disk."""
