"""Pre-training on several labelled data sets, by prompts that are drawn from their masks."""
