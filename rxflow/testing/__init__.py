"""Tools for tests of pipelines; no test framework is imported.

`Marbles` plays marble diagrams in virtual time, and says where a pipeline does something else.
`assert_no_loss` kills a pipeline again and again and counts what is missing.
"""

from rxflow.testing.diagrams.diagram import Diagram
from rxflow.testing.diagrams.durations import DiagramError
from rxflow.testing.marbles import Marbles
from rxflow.testing.no_loss import Outcome, assert_no_loss
from rxflow.testing.publisher import NumberedPublisher

__all__ = [
    "Diagram",
    "DiagramError",
    "Marbles",
    "NumberedPublisher",
    "Outcome",
    "assert_no_loss",
]
