"""What the dev stack says when it cannot go on."""

from __future__ import annotations


class StackError(Exception):
    """A part of the dev stack cannot start or has ended; the message is for the person at the terminal."""
