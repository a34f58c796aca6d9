"""Corrections as a data set on disk: which ones, with which images, in which form."""
