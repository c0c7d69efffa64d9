"""The work directory of a run: training, checkpoints, metrics, results."""
