"""Processes while they run: threads, launching, heartbeats, and errors in one line.

`usp_mm` imports `threads` from here before torch, so this file imports nothing.
"""
