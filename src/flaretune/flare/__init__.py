"""Everything that touches NVIDIA FLARE: messages, controllers, client loops, recipes."""
