"""One training at a time: two share the GPU's memory, and both crawl or die."""

from __future__ import annotations

from guard.verdict import DENY, Finding, said

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from guard.world import World

RULE = "one-training"
ADVICE = "start it with the tool start_lora_training, which queues it; `mlx-training jobs` shows what runs"


def judge(world: World) -> list[Finding]:
    works = [work for work in world.scene.works if work.kind == "train" and not work.place]
    if not works:
        return []
    if len(works) > 1:
        return [Finding(
            DENY, RULE, f"this command starts {len(works)} trainings ({said(works[0].by, 60)}, {said(works[1].by, 60)})",
            "trainings share one GPU and one memory, and each must be looked at before the next starts", ADVICE,
        )]  # fmt: skip
    running = [job for job in world.trainings() if job.kind == "train"]
    if running:
        return [Finding(
            DENY, RULE, f"{said(works[0].by)} starts a second training while {running[0].title} runs",
            "both would share the GPU and its memory: the running one slows down or is killed", ADVICE,
        )]  # fmt: skip
    return []
