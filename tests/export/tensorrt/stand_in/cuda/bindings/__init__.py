"""Found before the real package, where that is installed: one without this file would give way to it."""
