"""A demonstration on an image that a Python package contains: no download, no patient's data."""
