"""The legacy side: a TF1 graph as people wrote them, with placeholders, get_variable, and an optimizer's minimize."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow.compat.v1 as tf

from random_ports.pairs import RandomPort
from random_ports.recipes import NORM_VARIABLES, Layer, Norm


@contextlib.contextmanager
def _switches_and_merges() -> Iterator[None]:
    """Loops as TF1 built them."""
    enabled = tf.control_flow_v2_enabled()
    tf.disable_control_flow_v2()
    try:
        yield
    finally:
        if enabled:
            tf.enable_control_flow_v2()


class Graph:
    """The graph of one recipe, in the default graph."""

    def __init__(self, about: RandomPort, dtype: str) -> None:
        self.about, self.recipe, self.dtype = about, about.recipe, dtype
        self.variables: dict[str, Any] = {}

    def build(self) -> dict[str, Any]:
        """Its parts by name."""
        about = self.recipe
        x = tf.placeholder("int32" if about.tokens else self.dtype, [None, *about.shape], name="x")
        sparse = about.loss.kind == "sparse_softmax"
        y = tf.placeholder(*(("int32", [None]) if sparse else (self.dtype, [None, about.classes])), name="y")
        inputs = {"x": x, "y": y}
        if about.picks:
            inputs["position"] = tf.placeholder("int32", [None], name="position")
        self.training = tf.placeholder_with_default(False, [], name="training")
        for name in self.about.created("legacy"):
            if name != "output/average":
                self.create(name)
        hidden = self.front(inputs)
        for layer in about.layers:
            hidden = self.layer(layer, hidden)
        objective = self.objective(y, hidden)
        loss = objective
        if about.loss.named != 1:
            loss = tf.multiply(objective, about.loss.named, name="score")
        step = tf.train.get_or_create_global_step()
        train = self.trained(-loss if about.loss.named == -1 else objective, step)
        outputs = {"output": tf.identity(hidden, name="predictions")}
        if self.about.seed % 5 == 0 and about.loss.named == 1:  # inputs, outputs and mode are to be found
            return {"loss": loss, "train_op": train}
        mode = {"training": {self.training: True}} if self.about.seed % 2 else {}
        return {"inputs": inputs, "outputs": outputs, "loss": loss, "train_op": train, **mode}

    # --- Variables ---
    def create(self, name: str) -> None:
        """One variable."""
        shape = self.recipe.variables()[name]
        initialiser = self.recipe.initialiser(name)
        make = {
            "glorot": tf.glorot_uniform_initializer,
            "normal": lambda: tf.random_normal_initializer(stddev=0.3),
            "truncated": lambda: tf.truncated_normal_initializer(stddev=0.3),
            "embedding": lambda: tf.random_uniform_initializer(-0.5, 0.5),
            "constant": lambda: tf.constant_initializer(self.recipe.first_value(name)),
        }[initialiser]()
        trainable = not name.split("/")[1].startswith("moving")
        named = self.about.legacy_name(name)
        averaged = bool(self.recipe.average and name == "output/kernel")  # an average may read a reference too early
        if named.startswith("Variable"):
            self.variables[name] = tf.Variable(
                make(shape, dtype=self.dtype), trainable=trainable, use_resource=averaged
            )
        else:
            self.variables[name] = tf.get_variable(
                named, shape, self.dtype, make, trainable=trainable, use_resource=averaged or self.about.seed % 3 == 0
            )

    # --- What comes before the layers ---
    def front(self, inputs: dict[str, Any]) -> Any:
        """What the first layer takes."""
        x, tokens = inputs["x"], self.recipe.tokens
        if tokens:
            with tf.name_scope("embed"):
                x = tf.nn.embedding_lookup(self.variables["embed/embeddings"], x)
                if tokens.reads == "mean":
                    x = tf.reduce_mean(x, 1)
                elif tokens.reads == "flat":
                    x = tf.reshape(x, [-1, tokens.length * tokens.units])
                elif tokens.reads == "picked":
                    x = tf.gather(x, inputs["position"], axis=1, batch_dims=1)
        if self.recipe.loop:
            with tf.name_scope("loop"):
                x = self.loop(x)
        return x

    def loop(self, x: Any) -> Any:
        """The last state of the recurrence."""
        about = self.recipe.loop
        assert about is not None
        length, form = about.length, self.about.forms.legacy_loop
        kernel, recurrent = self.variables["loop/kernel"], self.variables["loop/recurrent_kernel"]

        def state(now: Any, last: Any) -> Any:
            z = tf.matmul(now, kernel) + tf.matmul(last, recurrent)
            return self.activated(about.activation, z + self.variables["loop/bias"] if about.bias else z)

        first = tf.zeros(tf.stack([tf.shape(x)[0], about.units]), self.dtype)
        if form == "unrolled":
            hidden = first
            for now in tf.unstack(x, length, axis=1):
                hidden = state(now, hidden)
            return hidden
        if form == "scan":
            return tf.scan(lambda last, now: state(now, last), tf.transpose(x, [1, 0, 2]), initializer=first)[-1]
        if form == "array":
            array = tf.TensorArray(self.dtype, length).unstack(tf.transpose(x, [1, 0, 2]))
            read = array.read
        else:
            read = lambda t: x[:, t]  # noqa: E731
        with _switches_and_merges() if form == "while_v1" else contextlib.nullcontext():
            found = tf.while_loop(
                lambda t, _: t < length, lambda t, last: (t + 1, state(read(t), last)), (tf.constant(0), first)
            )
        return found[1]

    # --- Layers ---
    def layer(self, layer: Layer, x: Any) -> Any:
        """What comes out of a layer."""
        with tf.name_scope(layer.name):
            return self.computed(layer, x)

    def computed(self, layer: Layer, x: Any) -> Any:
        kernel = self.variables[f"{layer.name}/kernel"]
        if layer.kind == "conv":
            z = tf.nn.conv2d(x, kernel, strides=[1, layer.stride, layer.stride, 1], padding=layer.padding.upper())
        else:
            if x.shape.rank > 2:
                x = tf.reshape(x, [-1, layer.inputs])
            z = tf.matmul(x, kernel)
        if layer.bias:
            z = tf.nn.bias_add(z, self.variables[f"{layer.name}/bias"])
        if layer.norm:
            z = self.norm(layer, layer.norm, z)
        h = self.activated(layer.activation, z)
        if layer.dropout:
            h = tf.nn.dropout(h, rate=tf.where(self.training, tf.constant(layer.dropout, self.dtype), 0.0))
        return h

    @staticmethod
    def activated(kind: str, z: Any) -> Any:
        return {
            "linear": lambda: z,
            "relu": lambda: tf.nn.relu(z),
            "tanh": lambda: tf.tanh(z),
            "sigmoid": lambda: tf.sigmoid(z),
            "elu": lambda: tf.nn.elu(z),
            "softplus": lambda: tf.nn.softplus(z),
            "leaky_relu": lambda: tf.nn.leaky_relu(z, alpha=0.2),
        }[kind]()

    def norm(self, layer: Layer, norm: Norm, x: Any) -> Any:
        gamma, beta, mean, variance = (self.variables[f"{layer.name}_norm/{kind}"] for kind in NORM_VARIABLES)
        moments = tf.nn.moments(x, list(range(x.shape.rank - 1)))
        for moving, now in zip((mean, variance), moments, strict=True):
            update = tf.assign(moving, moving * norm.momentum + now * (1 - norm.momentum))
            tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, update)
        used = (tf.where(self.training, now, moving) for now, moving in zip(moments, (mean, variance), strict=True))
        return tf.nn.batch_normalization(x, *used, beta, gamma, norm.epsilon)

    # --- Training ---
    def objective(self, y: Any, logits: Any) -> Any:
        """What is minimised."""
        about = self.recipe
        each = {
            "mse": lambda: tf.square(logits - y),
            "softmax": lambda: tf.nn.softmax_cross_entropy_with_logits_v2(labels=y, logits=logits),
            "sparse_softmax": lambda: tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits),
            "sigmoid": lambda: tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=logits),
        }[about.loss.kind]()
        loss = tf.reduce_mean(each)
        if about.l2:
            loss += tf.add_n(
                [about.l2 * tf.reduce_sum(tf.square(self.variables[f"{each.name}/kernel"])) for each in about.layers]
            )
        return tf.identity(loss, name="loss")

    def trained(self, objective: Any, step: Any) -> Any:
        """The op of a training step."""
        about, optimizer = self.recipe, self.optimizer(step)
        with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
            if about.optimizer.clip:
                pairs = optimizer.compute_gradients(objective)
                train = optimizer.apply_gradients(self.clipped(pairs), global_step=step)
            else:
                train = optimizer.minimize(objective, global_step=step)
        if about.average:
            average = tf.train.ExponentialMovingAverage(about.average.decay, step if about.average.counted else None)
            with tf.control_dependencies([train]):
                train = average.apply([self.variables["output/kernel"]])
        return train

    def clipped(self, pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        clip = self.recipe.optimizer.clip
        assert clip is not None
        gradients = [tf.convert_to_tensor(gradient) for gradient, _ in pairs]
        if clip.kind == "global":
            gradients, _ = tf.clip_by_global_norm(gradients, clip.bound)
        elif clip.kind == "norm":
            gradients = [tf.clip_by_norm(each, clip.bound) for each in gradients]
        else:
            gradients = [tf.clip_by_value(each, -clip.bound, clip.bound) for each in gradients]
        return [(gradient, variable) for gradient, (_, variable) in zip(gradients, pairs, strict=True)]

    def rate(self, step: Any) -> Any:
        """The rate, that may depend on the step."""
        train, about = tf.train, self.recipe.optimizer
        first, decay = about.rate, about.decay
        if decay is None:
            return first
        return {
            "exponential": lambda: train.exponential_decay(first, step, decay.steps, decay.rate, decay.staircase),
            "inverse_time": lambda: train.inverse_time_decay(first, step, decay.steps, decay.rate, decay.staircase),
            "piecewise": lambda: train.piecewise_constant(step, decay.boundaries, decay.values(first)),
            "polynomial": lambda: train.polynomial_decay(
                first, step, decay.steps, first * decay.end, decay.power, decay.cycle
            ),
            "cosine": lambda: train.cosine_decay(first, step, decay.steps, decay.end),
        }[decay.kind]()

    def optimizer(self, step: Any) -> Any:
        train, about, rate = tf.train, self.recipe.optimizer, self.rate(step)
        return {
            "SGD": lambda: train.GradientDescentOptimizer(rate),
            "Momentum": lambda: train.MomentumOptimizer(rate, about.momentum),
            "Nesterov": lambda: train.MomentumOptimizer(rate, about.momentum, use_nesterov=True),
            "Adagrad": lambda: train.AdagradOptimizer(rate, initial_accumulator_value=about.first),
            "RMSProp": lambda: train.RMSPropOptimizer(rate, about.rho, epsilon=about.epsilon),
            "Adam": lambda: train.AdamOptimizer(rate, about.beta_1, about.beta_2, about.epsilon),
        }[about.kind]()
