"""Older names that still work, placeholders for modules, and names that are imported when they are first used."""
