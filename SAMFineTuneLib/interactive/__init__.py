"""Interactive correction: prompts to masks on slices, and accepted masks to their neighbours."""
