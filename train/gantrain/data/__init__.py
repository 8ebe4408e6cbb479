"""Training data: pictures and their labels, from files, from packages, or drawn."""
