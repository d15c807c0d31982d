"""Causes: one per file, each explaining alerts by what was measured."""

from gradwatch.diagnosis.attention_scores import AttentionScores
from gradwatch.diagnosis.bad_batch import BadBatch
from gradwatch.diagnosis.bottleneck import Bottleneck
from gradwatch.diagnosis.bounded_activation import BoundedActivation
from gradwatch.diagnosis.broken_step import BrokenStep
from gradwatch.diagnosis.closed_gates import ClosedGates
from gradwatch.diagnosis.dead_units import DeadUnits
from gradwatch.diagnosis.depth_profile import DepthProfile
from gradwatch.diagnosis.detached import Detached
from gradwatch.diagnosis.eval_mode import EvalMode
from gradwatch.diagnosis.exploding_in_time import ExplodingInTime
from gradwatch.diagnosis.first_nonfinite import FirstNonFinite
from gradwatch.diagnosis.flat_operation import FlatOperation
from gradwatch.diagnosis.flat_output import FlatOutput
from gradwatch.diagnosis.growing_gradient import GrowingGradient
from gradwatch.diagnosis.heavy_dropout import HeavyDropout
from gradwatch.diagnosis.large_weights import LargeWeights
from gradwatch.diagnosis.learning_rate import LearningRate
from gradwatch.diagnosis.loss_mismatch import LossMismatch
from gradwatch.diagnosis.loss_scale import LossScale
from gradwatch.diagnosis.no_activation import NoActivation
from gradwatch.diagnosis.norm_weights import NormWeights
from gradwatch.diagnosis.not_zeroed import NotZeroed
from gradwatch.diagnosis.out_of_reach import OutOfReach
from gradwatch.diagnosis.plain_depth import PlainDepth
from gradwatch.diagnosis.post_norm import PostNorm
from gradwatch.diagnosis.rank_collapse import RankCollapse
from gradwatch.diagnosis.residual_branches import ResidualBranches
from gradwatch.diagnosis.same_output import SameOutput
from gradwatch.diagnosis.saturation import Saturation
from gradwatch.diagnosis.small_steps import SmallSteps
from gradwatch.diagnosis.small_weights import SmallWeights
from gradwatch.diagnosis.symmetry import Symmetry
from gradwatch.diagnosis.unread import Unread
from gradwatch.diagnosis.unregistered import Unregistered
from gradwatch.diagnosis.unscaled_inputs import UnscaledInputs
from gradwatch.diagnosis.unscaled_targets import UnscaledTargets
from gradwatch.diagnosis.untrained import Untrained
from gradwatch.diagnosis.vanishing_in_time import VanishingInTime
from gradwatch.diagnosis.weight_decay import WeightDecay
from gradwatch.diagnosis.zero_weights import ZeroWeights
from gradwatch.protocols import Cause

__all__ = [
    "AttentionScores",
    "BadBatch",
    "Bottleneck",
    "BoundedActivation",
    "BrokenStep",
    "Cause",
    "ClosedGates",
    "DeadUnits",
    "DepthProfile",
    "Detached",
    "EvalMode",
    "ExplodingInTime",
    "FirstNonFinite",
    "FlatOperation",
    "FlatOutput",
    "GrowingGradient",
    "HeavyDropout",
    "LargeWeights",
    "LearningRate",
    "LossMismatch",
    "LossScale",
    "NoActivation",
    "NormWeights",
    "NotZeroed",
    "OutOfReach",
    "PlainDepth",
    "PostNorm",
    "RankCollapse",
    "ResidualBranches",
    "SameOutput",
    "Saturation",
    "SmallSteps",
    "SmallWeights",
    "Symmetry",
    "Unread",
    "Unregistered",
    "UnscaledInputs",
    "UnscaledTargets",
    "Untrained",
    "VanishingInTime",
    "WeightDecay",
    "ZeroWeights",
    "default",
]


def default() -> tuple[Cause, ...]:
    """All causes, of which a report shows the most confident first; of equals, the one that comes first here.

    The loop comes before data and precision, these before the network, one layer before all, and the network before
    the steps it takes.

    >>> print(*(type(cause).__name__ for cause in default()[:4]))
    Detached NotZeroed Untrained Unregistered
    """
    return (
        Detached(),
        NotZeroed(),
        Untrained(),
        Unregistered(),
        Unread(),
        EvalMode(),
        BrokenStep(),
        LossScale(),
        FirstNonFinite(),
        LossMismatch(),
        UnscaledInputs(),
        UnscaledTargets(),
        FlatOutput(),
        OutOfReach(),
        HeavyDropout(),
        SameOutput(),
        FlatOperation(),
        ZeroWeights(),
        Symmetry(),
        NoActivation(),
        WeightDecay(),
        ClosedGates(),
        Bottleneck(),
        DeadUnits(),
        Saturation(),
        BoundedActivation(),
        AttentionScores(),
        PlainDepth(),
        PostNorm(),
        RankCollapse(),
        NormWeights(),
        SmallWeights(),
        ResidualBranches(),
        LargeWeights(),
        VanishingInTime(),
        ExplodingInTime(),
        SmallSteps(),
        LearningRate(),
        BadBatch(),
        GrowingGradient(),
        DepthProfile(),
    )
