"""Asking servers: `client` is the one module that knows httpx."""

from evomerge.http.client import Client, ClientSettings, Reply, UnusableError
from evomerge.http.secret import Secret

__all__ = ["Client", "ClientSettings", "Reply", "Secret", "UnusableError"]
