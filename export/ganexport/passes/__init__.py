"""Graph passes, one a file, each exact in fp32: a pass changes how a graph computes, never what.

`pipeline.run_passes` runs them in order and proves each one: the graph before and after it on the same latents.
docs/adding-a-pass.md says what a pass has to keep to.
"""
