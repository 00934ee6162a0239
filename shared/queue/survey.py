"""How lanes stand: what waits in them and moves, and how each of their deployments does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from shared.limits import LIMIT_NAMES

LONG_REST = 10.0
"""The seconds of rest from which on a deployment is not waited for by who can go elsewhere."""

Health = Literal["closed", "open", "half_open", "out"]
"""A circuit's state; `out` is a key that the provider refuses."""


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """How one key of a lane does.

    `limits` are those in force, by their names in the configuration, `learned` those of them that the provider's
    headers and refusals taught; `left` is what each admits at once. `resting` is in seconds.
    """

    key: str
    health: Health
    resting: float
    in_flight: int | None
    limits: Mapping[str, float]
    learned: Mapping[str, float]
    left: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class LaneState:
    """How a lane stands.

    `pace` is in jobs a second, 0 where nothing moved lately; `latency` is how long a call takes, in seconds, and
    `latency_p95` how long nineteen of twenty take at most, None where nobody knows.
    """

    waiting: int = 0
    in_motion: int = 0
    pace: float = 0.0
    latency: float | None = None
    latency_p95: float | None = None
    deployments: tuple[DeploymentState, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether calls may go there: one deployment at least has no open circuit and does not rest for long."""
        return not self.deployments or any(
            one.health in ("closed", "half_open") and one.resting < LONG_REST for one in self.deployments
        )

    @property
    def eta(self) -> float | None:
        """Seconds until a job that comes now is taken; None where nothing moves."""
        resting = min((one.resting for one in self.deployments), default=0.0)
        if not self.waiting:
            return resting
        return resting + self.waiting / self.pace if self.pace else None


def lane_state(found: Sequence[Any]) -> LaneState:
    """Return what `survey.lua` said of one lane."""
    waiting, in_motion, pace, mean, deviation, deployments = found
    return LaneState(
        waiting=waiting,
        in_motion=in_motion,
        pace=pace,
        latency=None if mean is None else mean / 1000,
        latency_p95=None if mean is None else (mean + 2 * deviation) / 1000,
        deployments=tuple(_deployment(one) for one in deployments or ()),
    )


def _deployment(found: Mapping[str, Any]) -> DeploymentState:
    # An empty table of Lua's is a list to JSON.
    limits, learned, left = (_named(found[name] or {}) for name in ("limits", "learned", "left"))
    return DeploymentState(
        key=found["key"],
        health=found["health"],
        resting=found["resting"],
        in_flight=found["in_flight"],
        limits=limits,
        learned=learned,
        left=left,
    )


def _named(values: Mapping[str, float]) -> dict[str, float]:
    return {name: values[short] for name, short in LIMIT_NAMES.items() if short in values}
