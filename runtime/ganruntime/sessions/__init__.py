"""Backends, one a file. Each imports its library when a session is opened, not before."""

from ganruntime.sessions.base import Session

__all__ = ["Session"]
