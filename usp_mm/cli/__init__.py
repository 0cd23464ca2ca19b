"""The commands, one module each: `usp COMMAND`, and the scripts of the same purpose in tools/."""
