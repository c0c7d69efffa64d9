"""FactorVAE's score: which unit stays still where a label does.

Kim & Mnih: Disentangling by Factorising. ICML 2018, Section 4.
"""

import numpy as np

# Votes on each label to fit and to report on, and the examples of a vote.
FITTED, REPORTED, EXAMPLES = 200, 100, 64


def compute(codes: np.ndarray, classes: np.ndarray) -> np.ndarray:
  """Computes the accuracy of a majority vote for each label, `[L]`.

  A vote takes examples, with replacement, that share a random example's class
  of one label; it goes to the unit with the least variance among them, over
  that among all. Each unit predicts the label that most of its votes come
  from; reported is the share of new votes whose unit predicts their label.
  Chance is a mean of 1 / L. Units that are constant have no vote.

  Args:
    codes: `[M, U]`, not all constant.
    classes: `[M, L]` int from 0.
  """
  rng = np.random.default_rng(0)
  codes = codes[:, codes.std(axis=0) > 0]
  total = codes.var(axis=0)
  votes = np.zeros((classes.shape[1], FITTED + REPORTED), np.int64)
  for label, column in enumerate(classes.T):
    members = [np.flatnonzero(column == c) for c in range(column.max() + 1)]
    for i, first in enumerate(rng.integers(0, len(column), votes.shape[1])):
      rows = rng.choice(members[column[first]], EXAMPLES)
      votes[label, i] = np.argmin(codes[rows].var(axis=0) / total)
  units = range(codes.shape[1])
  counts = [np.sum(votes[:, :FITTED] == unit, axis=1) for unit in units]
  predicted = np.argmax(counts, axis=1)[votes[:, FITTED:]]
  labels = np.arange(len(votes))[:, np.newaxis]
  return np.mean(predicted == labels, axis=1)
