"""Reasoning segmentation: an image and a request become an answer, and the answer masks.

This package knows no server, no queue and no Label Studio; importing it does nothing.
"""
