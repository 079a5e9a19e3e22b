"""Fine-tune the Segment Anything Model on a few labelled slices and segment whole volumes."""

__version__ = "0.1.0"
