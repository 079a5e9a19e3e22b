"""The main job on a real image that a Python package ships: no download, no patient."""
