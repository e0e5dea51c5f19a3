"""The search for a network within measured limits: evolution, closed loop, confirmation on the device.

Knows no project folder: spaces, scores, latency models and state files are handed to it.
"""
