"""torch_gan as its original has it: nn.Modules, BCELoss or MSELoss, backward(), torch.optim.Adam.

Ports: tf1_graph/torch_gan.py, tf2_eager/gradient_tape/torch_gan.py, tf2_eager/keras2/torch_gan.py,
tf2_eager/keras3/torch_gan.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tfport.models.spec import ModelSpec, Network
from tfport.peers.pytorch.subject import ModuleSubject, Tensors, adam, batch_norm, leaky_relu, linear


class Generator(nn.Module):  # type: ignore[misc]
    """z [B, 50] to images [B, 784]."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        layer = network.layer
        self.hidden = linear(layer("hidden"))
        self.hidden_norm = batch_norm(layer("hidden_norm"))
        self.hidden_activation = nn.ReLU()
        self.output = linear(layer("output"))
        self.output_norm = batch_norm(layer("output_norm"))
        self.output_activation = nn.Tanh()

    def layers(self, z: Any) -> dict[str, Any]:
        """Every layer's output, after its activation."""
        h = self.hidden(z)  # [B, 200]
        n = self.hidden_activation(self.hidden_norm(h))
        y = self.output(n)  # [B, 784]
        return {"hidden": h, "hidden_norm": n, "output": y, "output_norm": self.output_activation(self.output_norm(y))}

    def forward(self, z: Any) -> Any:
        """Images alone."""
        return self.layers(z)["output_norm"]


class Discriminator(nn.Module):  # type: ignore[misc]
    """Images [B, 784] to the probability of being real [B, 1]."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        layer = network.layer
        self.hidden = linear(layer("hidden"))
        self.hidden_activation = leaky_relu(layer("hidden"))
        self.output = linear(layer("output"))
        self.output_norm = batch_norm(layer("output_norm"))
        self.output_activation = nn.Sigmoid()

    def layers(self, x: Any) -> dict[str, Any]:
        """Every layer's output, after its activation."""
        h = self.hidden_activation(self.hidden(x))  # [B, 200]
        y = self.output(h)  # [B, 1]
        return {"hidden": h, "output": y, "output_norm": self.output_activation(self.output_norm(y))}

    def forward(self, x: Any) -> Any:
        """The probability alone."""
        return self.layers(x)["output_norm"]


class TorchGan(ModuleSubject):
    """Both modules, and each phase as a loss that is gone back from."""

    def build_modules(self) -> None:
        """Builds the modules with their default initialisers, the losses and the optimizers."""
        spec = self.spec
        self.generator = Generator(spec.network("generator"))
        self.discriminator = Discriminator(spec.network("discriminator"))
        self.modules = {"generator": self.generator, "discriminator": self.discriminator}
        self.loss: nn.Module = {"bce": nn.BCELoss, "least_squares": nn.MSELoss}[spec.variant]()

    def build_optimizers(self) -> None:
        """Builds one optimizer a module."""
        self.optimizer_by_name = {
            name: adam(self.spec.optimizer(name), self.modules[name].parameters()) for name, _ in self.spec.optimizers
        }

    # --- Outputs ------------------------------------------------------------------------------------------------------
    def outputs(self, batch: Tensors) -> dict[str, Any]:
        """Every named output, in the order of computation."""
        made = self.generator.layers(batch["latent"])
        fresh = self.generator(batch["latent_generator"])
        judged = {"real": batch["images"], "fake": made["output_norm"], "fresh": fresh}
        return {
            **{f"generator/{name}": value for name, value in made.items()},
            **{
                f"discriminator/{name}/{of}": value
                for of, images in judged.items()
                for name, value in self.discriminator.layers(images).items()
            },
        }

    def images(self, inputs: Tensors) -> Any:
        """G(z): [B, 784]."""
        return self.generator(inputs["latent"])

    # --- Losses, both minimised ---------------------------------------------------------------------------------------
    def discriminator_loss(self, batch: Tensors) -> dict[str, Any]:
        """D on fakes against zeros, then on real images against ones: two passes, each of which moves statistics."""
        fakes = self.generator(batch["latent"]).detach()
        judged_fake = self.discriminator(fakes)
        judged_real = self.discriminator(batch["images"])
        loss_real = self.loss(judged_real, torch.ones_like(judged_real))
        loss_fake = self.loss(judged_fake, torch.zeros_like(judged_fake))
        return {"loss_D": loss_real + loss_fake}

    def generator_loss(self, batch: Tensors) -> dict[str, Any]:
        """D on images of another z against ones; nobody has put D in inference mode."""
        judged = self.discriminator(self.generator(batch["latent_generator"]))
        return {"loss_G": self.loss(judged, torch.ones_like(judged))}


def build(spec: ModelSpec, precision: str, seed: int) -> TorchGan:
    """Builds the modules with PyTorch's own initialisers."""
    return TorchGan(spec, precision, seed)
