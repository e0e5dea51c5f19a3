"""A project folder: its settings and files, its network, images and devices, and what scores its networks.

Knows no verb; torch is imported inside functions only.
"""
