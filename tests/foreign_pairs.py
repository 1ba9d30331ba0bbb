"""The pairs of tests/foreign: an original in the manner of its time, a correct port of it, and one with one change."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Foreign:
    """One original, and what the report of its changed port must say."""

    name: str
    """The module of the original, which has `graph`; the port's is NAME_port: `right` and `wrong`."""
    original: str
    """What the original is written with."""
    port: str
    """What the port is written with."""
    change: str
    """What is wrong with the changed port."""
    rung: str
    """The rung that the report is located at; below the numerical ones, the first that fails."""
    place: str
    """A regular expression that where it is located matches: nodes with their lines, the tensor, or a finding."""
    says: tuple[str, ...] = ()
    """Regular expressions that the changed port's report matches."""
    never: tuple[str, ...] = ()
    """Regular expressions that it does not match."""
    batches: str = ""
    """A function of foreign.data; else the original has `next_batch`."""
    steps: int = 4
    elsewhere: bool = False
    """Whether the report is known to name another place."""
    torch: bool = False
    """Whether PyTorch is needed."""
    quick: bool = False
    """Whether `make test` runs it."""


PAIRS = (
    Foreign(
        "vae",
        "TF1, all of it global, no names",
        "tf.Module, tape",
        "the divergence weighs half",
        "loss",
        r"mul_3 \(Mul, factor 0\.5, vae_port\.py:\d+\) is only in the port",
    ),
    Foreign(
        "wgan_gp",
        "TF1, parameters in a global dictionary, gradient of a gradient",
        "Keras 3 networks, nested tapes",
        "the penalty's norm is taken over the batch",
        "loss",
        r"reduction_indices is \[1\] in the original and \[0, 1\] in the port",
        quick=True,
    ),
    Foreign(
        "dcgan",
        "TF1 scopes and ops of its own, batch_norm by control dependencies",
        "Keras 3 networks, tape",
        "momentum of batch normalisation, 0.99 for 0.9",
        "update",
        r"g_bn0/pop_mean",
    ),
    Foreign(
        "cifar",
        "TF1 collections, weight decay, LRN, moving averages, a staircase",
        "tf.Module, tape",
        "alpha of the local response normalisation, not divided by 9",
        "forward",
        r"alpha is 0\.01111111 in the original and 0\.1 in the port",
    ),
    Foreign(
        "word2vec_nce",
        "TF1 skip-gram, NCE",
        "tf.Module, Keras 3 SGD",
        "accidental hits are removed",
        "loss",
        r"ComputeAccidentalHits",
    ),
    Foreign(
        "word2vec_sampled",
        "TF1 CBOW, sampled softmax, Adagrad",
        "tf.Module, Keras 3 Adagrad",
        "Adagrad's sums start at 1, not 0.1",
        "initialisation",
        r"starts as the constant 0\.1 against the constant 1",
    ),
    Foreign(
        "dqn",
        "TF1 target network, Huber loss, clipped gradients, RMSProp",
        "Keras 2 networks, tape",
        "gradients are clipped by value, not by norm",
        "gradient",
        r"the gradient of eval_net/l2/b2",
        quick=True,
    ),
    Foreign(
        "a2c",
        "TF1 actor-critic, orthogonal start, global-norm clipping, RMSProp",
        "Keras 3 network and RMSProp",
        "the value's loss weighs 1, not 0.5",
        "loss",
        r"factor is 0\.5 in the original and 1 in the port",
    ),
    Foreign(
        "ddpg",
        "TF1 soft targets, collections by scope",
        "Keras 3 networks, tape",
        "tau is 0.001, not 0.01",
        "update",
        r"Actor/target/l1/kernel",
    ),
    Foreign(
        "multitask",
        "TF1, two optimizers on a shared layer",
        "Keras 2, two compiled models",
        "one optimizer for both",
        "update",
        r"reg/shared/W",
    ),
    Foreign(
        "accumulation",
        "TF1 accumulators, zero and apply ops, Nesterov",
        "tf.Module, Keras 3 SGD",
        "the sum of the gradients is applied, not the mean",
        "gradient",
        r"look at clipping, scaling",
    ),
    Foreign(
        "mixed_precision",
        "TF1 float16 by a custom getter, a loss scale",
        "tf.Module, Keras 3 SGD",
        "the loss scale is not taken off the gradients",
        "gradient",
        r"look at clipping, scaling",
    ),
    Foreign(
        "dann",
        "TF1 gradient_override_map",
        "Keras 3, tf.custom_gradient, compiled",
        "the reversed gradient weighs 1, not 0.7",
        "gradient",
        r"the gradient of feature_extractor/b0",
    ),
    Foreign(
        "binarised",
        "TF1 tf.custom_gradient, clipped weights",
        "Keras 3 layers and constraints, compiled",
        "the straight-through gradient does not saturate",
        "gradient",
        r"gradient of layer2/W",
    ),
    Foreign(
        "masked_keras",
        "Keras 2 functional, masks",
        "Keras 3 functional",
        "the mean ignores the mask",
        "forward",
        r"Only in the port before it: functional\w*/mean\w*/Mean",
    ),
    Foreign(
        "transformer",
        "TF1 attention, tied embedding, smoothed labels, a Noam schedule",
        "Keras 3 layers, compiled",
        "scores are divided by the root of d_model, not of d_k",
        "forward",
        r"2\.828427",
    ),
    Foreign(
        "textcnn",
        "TF1 name scopes, dropout_keep_prob, L2",
        "Keras 3 functional",
        "dropout rate, 0.2 for 0.5",
        "forward",
        r"computed directly from dropout_keep_prob",
    ),
    Foreign(
        "upsampler",
        "TF1 segmentation, atrous convolution, resize with aligned corners",
        "tf.Module, Keras 3 SGD",
        "corners are not aligned",
        "forward",
        r"[Rr]esize",
    ),
    Foreign(
        "ptb_lstm",
        "TF1 BasicLSTMCells, unrolled",
        "Keras 3 LSTMs, compiled",
        "the forget gate starts with a bias of 1",
        "initialisation",
        r"forget|bias",
    ),
    Foreign(
        "bidirectional",
        "TF1 bidirectional_dynamic_rnn, lengths",
        "Keras 3 Bidirectional, mask",
        "padding counts in the loss",
        "loss",
        r"Mean",
    ),
    Foreign(
        "char_gru",
        "TF1 dynamic_rnn, GRUCell, carried state",
        "tf.Module, the cell by hand",
        "the state is not carried over",
        "forward",
        r"computed directly from Hin",
        batches="text",
    ),
    Foreign(
        "slim_net",
        "tf.contrib.slim, arg_scope, UPDATE_OPS",
        "Keras 3 network and RMSProp",
        "momentum of batch normalisation, 0.999 for 0.9",
        "update",
        r"moving_mean",
        batches="images",
    ),
    Foreign(
        "estimator_net",
        "tf.estimator's model_fn, tf.layers, contrib's l2_regularizer",
        "Keras 3 functional",
        "L2 is left out",
        "loss",
        r"L2Loss",
        batches="rows",
    ),
    Foreign(
        "dropout_rnn",
        "TF1 DropoutWrapper, dynamic_rnn",
        "tf.Module, the cell by hand",
        "dropout rate, 0.4 for 0.5",
        "forward",
        r"computed directly from keep_prob",
        batches="series",
    ),
    Foreign(
        "seq2seq",
        "TF1 attention decoder, GRUCells, Adagrad",
        "tf.Module, the cells by hand",
        "scores are not scaled",
        "forward",
        r"\((Mul|RealDiv|Softmax), [^)]*seq2seq_port",
        elsewhere=True,
    ),
    Foreign(
        "mnist_layers", "tf.layers, twin towers", "Keras 2 compiled", "padding before, not behind", "forward", r"Pad"
    ),
    Foreign(
        "gan_order",
        "TF1 GAN, all of it global",
        "tf.Module, tape",
        "G is trained before D",
        "update",
        r"The original runs disc, then gen, and the port gen, then disc",
    ),
    Foreign(
        "ema_weights",
        "TF1 moving averages read by a custom getter",
        "tf.Module, averages by hand",
        "decay of the averages, 0.999 for 0.99",
        "update",
        r"ExponentialMovingAverage",
    ),
    Foreign(
        "torch_cnn",
        "PyTorch functional net, weight decay, StepLR",
        "tf.Module, Keras 3 SGD",
        "slope of leaky_relu, 0.2 for 0.01",
        "forward",
        r"the port has LeakyRelu .* where the original has leaky_relu",
        torch=True,
    ),
    Foreign(
        "torch_gru",
        "PyTorch nn.GRU, two layers",
        "Keras 3 GRUs, compiled",
        "the mean over the batch, not the sum",
        "loss",
        r"torch_gru_port|objective",
        torch=True,
    ),
)
