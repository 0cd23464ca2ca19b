"""What `benchmark.py gpu` measures, a module for each group of sections."""
