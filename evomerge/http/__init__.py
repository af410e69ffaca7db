"""Asking servers: `lines` is the one module that knows httpx."""

from evomerge.http.client import Client, ClientSettings, UnusableError
from evomerge.http.lines import Reply
from evomerge.http.secret import Secret

__all__ = ["Client", "ClientSettings", "Reply", "Secret", "UnusableError"]
