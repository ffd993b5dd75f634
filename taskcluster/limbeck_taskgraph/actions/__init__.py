"""What a person can ask of a deployment: a run, an evaluation, to go on after failures, or to stop."""
