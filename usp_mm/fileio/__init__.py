"""Files: written whole or not at all, locked, downloaded, checked for damage, and weights read from them strictly."""
