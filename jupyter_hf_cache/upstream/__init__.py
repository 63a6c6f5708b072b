"""Asking the upstream: requests in threads, fills, and the decisions about when to ask.

Knows nothing of the server.
"""
