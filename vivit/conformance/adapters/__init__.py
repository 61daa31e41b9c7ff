"""Implementations to examine: ours and others'. Each module is imported only when it is named."""
