"""Optimizers and their wrappers, parameter groups, accumulation, mixed precision, learning rates and shared optimizer state."""
