"""What changes in the course of a training, each a function of the step alone."""
