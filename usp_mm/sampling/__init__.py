"""Sample pictures of requested classes, and files with thousands of samples."""
