"""The character model in TensorFlow 2: the cell is written out as TF1 has it, in a tf.Module."""

import keras
import tensorflow as tf


class CharModel(tf.Module):
    def __init__(self, carried, dtype):
        super().__init__(name="char_model")
        limit, self.carried = (6 / (13 + 12)) ** 0.5, carried

        def uniform(shape, limit, name):
            return tf.Variable(tf.random.uniform(shape, -limit, limit, dtype=dtype), name=name)

        self.gates = uniform([13, 12], limit, "gates")
        self.gates_bias = tf.Variable(tf.ones([12], dtype), name="gates_bias")
        self.candidate = uniform([13, 6], (6 / 19) ** 0.5, "candidate")
        self.candidate_bias = tf.Variable(tf.zeros([6], dtype), name="candidate_bias")
        self.readout = tf.Variable(tf.random.truncated_normal([6, 7], stddev=0.2, dtype=dtype), name="readout")
        self.readout_bias = tf.Variable(tf.zeros([7], dtype), name="readout_bias")
        self.optimizer = keras.optimizers.RMSprop(0.01, rho=0.9, momentum=0.5, epsilon=1e-10)
        self.optimizer.build(self.trainable_variables)
        for slot in self.optimizer.variables[2:8]:  # TF1's mean squares begin at one
            slot.assign(tf.ones_like(slot))

    def cell(self, x, h):
        reset, update = tf.split(tf.sigmoid(tf.concat([x, h], 1) @ self.gates + self.gates_bias), 2, axis=1)
        candidate = tf.tanh(tf.concat([x, reset * h], 1) @ self.candidate + self.candidate_bias)
        return update * h + (1 - update) * candidate

    def run(self, x, h):
        one_hot = tf.one_hot(x, 7, dtype=self.gates.dtype)
        if not self.carried:
            h = tf.zeros_like(h)
        states = []
        for step in range(5):
            h = self.cell(one_hot[:, step], h)
            states.append(h)
        return tf.stack(states, axis=1) @ self.readout + self.readout_bias, h

    @tf.function
    def __call__(self, X, Hin):
        logits, state = self.run(X, Hin)
        return {"Yo": tf.reshape(tf.nn.softmax(logits), [-1, 7]), "H": state}

    @tf.function
    def train_step(self, X, Y_, Hin):
        with tf.GradientTape() as tape:
            logits, _ = self.run(X, Hin)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(Y_, tf.int32), logits)
            loss = tf.reduce_mean(losses)
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return loss


def program(carried, dtype):
    model = CharModel(carried, dtype)
    # tfport >
    return {"module": model, "step": model.train_step, "outputs": model}
    # < tfport


def right(dtype="float32"):
    return program(True, dtype)


def wrong(dtype="float32"):
    return program(False, dtype)
