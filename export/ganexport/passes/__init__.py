"""Graph passes, one a file, each exact in fp32: a pass changes how a graph computes, never what.

`optimised` runs those that pay for a target, in order, and proves each one: the graph before and after it on the same
latents.
"""
