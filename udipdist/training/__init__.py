"""The training program behind `train`: order and feed of the subjects, the loop, and what is seen of a run."""
