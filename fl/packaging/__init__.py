"""Packaging: a version of the global model as files that others can use. One file an export format, and ``export``."""
