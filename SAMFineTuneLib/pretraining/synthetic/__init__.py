"""The starter's weights: synthetic images, and the training of the starter network on them."""
