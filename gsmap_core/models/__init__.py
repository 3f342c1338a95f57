"""The network: backbone, view transform, decoder, heads, post-processing, checkpoints."""
