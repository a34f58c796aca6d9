"""Reasoners: a request and an image in, a text that thinks and points out."""
