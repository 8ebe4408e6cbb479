"""The demo: the whole way on real data, in one folder, and one HTML report of what came of it."""
