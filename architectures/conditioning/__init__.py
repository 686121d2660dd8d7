"""One scheme, one file. The catalogue is `architectures.registry.BUILT_IN`."""
