"""From YAML to typed cells."""
