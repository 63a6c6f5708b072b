"""Tornado handlers shared by all apps. Knows nothing of jupyter_server or jupyterhub."""
