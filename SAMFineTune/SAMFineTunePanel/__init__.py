"""The parts of the SAMFineTune module: what is between Slicer's scene and the worker process."""
