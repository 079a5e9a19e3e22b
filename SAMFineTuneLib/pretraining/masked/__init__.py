"""Pre-training without labels: masked parts of images are reconstructed."""
