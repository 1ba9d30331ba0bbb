"""Skip-gram with NCE in TensorFlow 2."""

import tensorflow as tf


class SkipGram(tf.Module):
    def __init__(self, words=20, width=6, accidental_hits=True):
        super().__init__(name="skip_gram")
        self.embeddings = tf.Variable(tf.random.uniform([words, width], -1.0, 1.0), name="embeddings")
        start = tf.random.truncated_normal([words, width], stddev=width**-0.5)
        self.nce_weights = tf.Variable(start, name="nce_weights")
        self.nce_biases = tf.Variable(tf.zeros([words]), name="nce_biases")
        self.words, self.accidental_hits = words, accidental_hits
        self.optimizer = tf.keras.optimizers.SGD(1.0)

    @tf.function
    def train_step(self, train_inputs, train_labels):
        with tf.GradientTape() as tape:
            looked_up = tf.gather(self.embeddings, train_inputs)
            loss = tf.reduce_mean(
                tf.nn.nce_loss(
                    self.nce_weights,
                    self.nce_biases,
                    train_labels,
                    looked_up,
                    num_sampled=4,
                    num_classes=self.words,
                    remove_accidental_hits=not self.accidental_hits,
                )
            )
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    @tf.function
    def similarity(self):
        unit = tf.math.l2_normalize(self.embeddings, axis=1)
        return {"similarity": tf.matmul(tf.gather(unit, [1, 3, 5, 7]), unit, transpose_b=True)}


def program(**options):
    model = SkipGram(**options)
    # tfport >
    return {"module": model, "step": model.train_step, "outputs": lambda train_inputs: model.similarity()}
    # < tfport


def right():
    return program()


def wrong():
    return program(accidental_hits=False)
