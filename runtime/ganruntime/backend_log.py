"""Whether backends may write lines of their own to the standard error."""

from __future__ import annotations

_quiet = False


def keep_backends_quiet() -> None:
    """From a backend's next use on it writes nothing of its own; what goes wrong is raised.

    On a GPU ONNX Runtime writes lines for every session, and for shapes that go well after a second try. It has one
    setting for the whole process: so this is for commands, and not for a library whose host may want those lines.
    """
    global _quiet
    _quiet = True


def backends_are_quiet() -> bool:
    return _quiet
