"""What each clip policy does for a run that something goes wrong in. docs/clipping.md says what is measured and how."""
