"""Which runs an endpoint or channel wants to hear: the same fields in each of them."""

from pydantic import BaseModel, Field


class Match(BaseModel):
    """Fields that choose runs; a run has to fit all that are filled in."""

    match_deployments: list[str] = Field(
        default_factory=list,
        title="Only deployments",
        description="Names of the deployments whose runs it hears; all if empty.",
        examples=[["spark", "demo"]],
    )
    match_flows: list[str] = Field(
        default_factory=list,
        title="Only flows",
        description="Names of the flows whose runs it hears; all if empty.",
        examples=[["spark-job", "demo"]],
    )
    match_tags: list[str] = Field(
        default_factory=list,
        title="Only tags",
        description="It hears runs that have all of these tags; all runs if empty.",
        examples=[["nightly"]],
    )

    def matches(self, deployment: str | None, flow: str, tags: list[str]) -> bool:
        """Whether it wants to hear a run of that deployment, flow and tags."""
        return (
            (not self.match_deployments or deployment in self.match_deployments)
            and (not self.match_flows or flow in self.match_flows)
            and set(self.match_tags) <= set(tags)
        )
