"""From classes to pictures and files of samples."""
