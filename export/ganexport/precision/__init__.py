"""Precision, in the graph: typed fp16 and bf16 graphs with fp32 islands, and int8 as explicit Q/DQ over latents.

The source is the bundle's fp32 graph, and nothing else: no torch, no checkpoint.
"""
