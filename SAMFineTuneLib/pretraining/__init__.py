"""Weights to start a fine-tune from: made of synthetic, of unlabelled, or of labelled images."""
