"""Checks that run before training or testing begins."""
