"""Evaluation: how good what a generator gives is, by the metrics of `gantrain.metrics`, wherever the generator runs."""
