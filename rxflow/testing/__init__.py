"""What tests of pipelines need; no test framework is imported.

`assert_no_loss` kills a pipeline again and again and counts what is missing.
"""

from rxflow.testing.no_loss import Outcome, assert_no_loss
from rxflow.testing.publisher import NumberedPublisher

__all__ = ["NumberedPublisher", "Outcome", "assert_no_loss"]
