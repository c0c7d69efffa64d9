"""Scores of how codes and labels go together: MIG, SAP, DCI and modularity.

`compute_codes` gives the codes of any `encode`, `compute_scores` all scores of
them by name; `information` and `prediction` have each score by itself.
"""

from jacsup_jax.evaluation.disentanglement.information import compute_mig
from jacsup_jax.evaluation.disentanglement.information import compute_modularity
from jacsup_jax.evaluation.disentanglement.measuring import METRICS
from jacsup_jax.evaluation.disentanglement.measuring import SCORES
from jacsup_jax.evaluation.disentanglement.measuring import SCORES_OF_UNITS
from jacsup_jax.evaluation.disentanglement.measuring import check_metrics
from jacsup_jax.evaluation.disentanglement.measuring import compute_codes
from jacsup_jax.evaluation.disentanglement.measuring import compute_scores
from jacsup_jax.evaluation.disentanglement.prediction import WIDEST_FOREST
from jacsup_jax.evaluation.disentanglement.prediction import compute_dci
from jacsup_jax.evaluation.disentanglement.prediction import compute_sap
from jacsup_jax.evaluation.disentanglement.scores import Score
