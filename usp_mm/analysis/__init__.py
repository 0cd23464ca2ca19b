"""Cost and convergence of models and runs, and models under noise."""
