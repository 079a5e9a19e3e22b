"""2-D pictures (PNG, JPEG, TIFF, BMP): read as volumes of one slice or as masks, and written."""
