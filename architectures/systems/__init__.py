"""Published systems as they are, each from the same parts as the schemes."""
