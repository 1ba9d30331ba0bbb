"""Facts that several of the GANs have in common, so that each stands once."""

from __future__ import annotations

from tfport.models.spec import Logged, Phase, UpdateProtocol

HALF_STEPS = (
    Phase(
        "discriminator_real",
        "discriminator",
        ("discriminator",),
        "loss_D_real",
        "mean(-log D(x))",
        "minimised",
        accuracy="accuracy_D_real",
    ),
    Phase(
        "discriminator_fake",
        "discriminator",
        ("discriminator",),
        "loss_D_fake",
        "mean(-log(1 - D(G(z))))",
        "minimised",
        accuracy="accuracy_D_fake",
    ),
)
"""The two halves of a discriminator's step in the Keras notes, each a train_on_batch of its own."""

HALF_STEP_LOG = (
    Logged("loss_D", ((0.5, "loss_D_real"), (0.5, "loss_D_fake"))),
    Logged("accuracy_D", ((50.0, "accuracy_D_real"), (50.0, "accuracy_D_fake")), percent=True),
    Logged("loss_G", ((1.0, "loss_G"),)),
)
"""What the Keras notes print: half the sum of the losses, the mean accuracy in percent, and the generator's loss."""


def generator_phase(statistics: tuple[str, ...] = (), formula: str = "mean(-log D(G(z)))") -> Phase:
    """The generator's step through the frozen discriminator, by binary cross entropy against ones."""
    return Phase("generator", "generator", ("generator",), "loss_G", formula, "minimised", statistics=statistics)


SAME_NOISE = UpdateProtocol("half_steps", "alternating", "same")
FRESH_NOISE = UpdateProtocol("half_steps", "alternating", "fresh")
JOINT_SAME_NOISE = UpdateProtocol("joint", "alternating", "same")
