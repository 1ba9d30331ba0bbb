"""The translator in TensorFlow 2; the cells are written out, since TF1's GRU resets before the product.

The forward pass is no tf.function of its own: the gradients of one are dense, and TF1 clips by the norm of the slices.
"""

import keras
import tensorflow as tf


class Cell(tf.Module):
    def __init__(self, inputs, units, name):
        super().__init__(name=name)
        glorot = keras.initializers.GlorotUniform
        self.gates = tf.Variable(glorot()([inputs + units, 2 * units]), name="gates")
        self.gates_bias = tf.Variable(tf.ones([2 * units]), name="gates_bias")
        self.candidate = tf.Variable(glorot()([inputs + units, units]), name="candidate")
        self.candidate_bias = tf.Variable(tf.zeros([units]), name="candidate_bias")

    def __call__(self, x, h):
        reset, update = tf.split(tf.sigmoid(tf.concat([x, h], 1) @ self.gates + self.gates_bias), 2, axis=1)
        candidate = tf.tanh(tf.concat([x, reset * h], 1) @ self.candidate + self.candidate_bias)
        return update * h + (1 - update) * candidate


class Translator(tf.Module):
    def __init__(self, scaled):
        super().__init__(name="translator")
        glorot = keras.initializers.GlorotUniform
        self.scale = 6**-0.5 if scaled else 1.0
        self.source = tf.Variable(glorot()([9, 5]), name="source_embedding")
        self.encoder = Cell(5, 6, "encoder")
        self.target = tf.Variable(glorot()([9, 5]), name="target_embedding")
        self.decoder = Cell(11, 6, "decoder")
        self.attention = tf.Variable(glorot()([6, 6]), name="attention")
        self.out = tf.Variable(glorot()([12, 9]), name="out_kernel")
        self.out_bias = tf.Variable(tf.zeros([9]), name="out_bias")
        self.optimizer = keras.optimizers.Adagrad(0.05, initial_accumulator_value=0.1, epsilon=0.0)
        self.optimizer.build(self.trainable_variables)

    def __call__(self, encoder_inputs, decoder_inputs):
        h = tf.zeros([tf.shape(encoder_inputs)[0], 6])
        states = []
        for step in range(5):
            h = self.encoder(tf.gather(self.source, encoder_inputs[:, step]), h)
            states.append(h)
        memory = tf.stack(states, axis=1)
        masked = tf.where(encoder_inputs == 0, -1e9, 0.0)
        context, logits = tf.zeros_like(h), []
        for step in range(4):
            h = self.decoder(tf.concat([tf.gather(self.target, decoder_inputs[:, step]), context], 1), h)
            scores = tf.linalg.matvec(memory, h @ self.attention) * self.scale + masked
            context = tf.reduce_sum(tf.nn.softmax(scores)[..., None] * memory, axis=1)
            logits.append(tf.concat([h, context], 1) @ self.out + self.out_bias)
        return tf.stack(logits, axis=1)

    @tf.function
    def train_step(self, encoder_inputs, decoder_inputs, targets):
        with tf.GradientTape() as tape:
            logits = self(encoder_inputs, decoder_inputs)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
            counted = tf.cast(targets != 0, losses.dtype)
            loss = tf.reduce_mean(tf.reduce_sum(losses * counted, axis=1))
        variables = self.trainable_variables
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, variables), 1.0)
        self.optimizer.apply([tf.convert_to_tensor(gradient) for gradient in gradients], variables)
        return loss


def program(scaled):
    model = Translator(scaled)
    # tfport >
    return {
        "module": model,
        "step": model.train_step,
        "outputs": lambda encoder_inputs, decoder_inputs: {"logits": model(encoder_inputs, decoder_inputs)},
    }
    # < tfport


def right():
    return program(True)


def wrong():
    return program(False)
