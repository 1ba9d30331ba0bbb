"""The tagger in Keras 3: the mask comes from the ids, and the loss counts what is masked in."""

import keras
import tensorflow as tf
from keras import layers


def network():
    words = keras.Input([6], dtype="int32", name="word_ids")
    x = layers.Embedding(12, 5, mask_zero=True, embeddings_initializer="glorot_uniform", name="embedding")(words)
    lstm = layers.LSTM(
        5, return_sequences=True, zero_output_for_mask=True, recurrent_initializer="glorot_uniform", name="lstm"
    )
    x = layers.Bidirectional(lstm, name="both")(x)
    return keras.Model(words, layers.Dense(4, name="tags")(x))


class Trainer:
    def __init__(self, masked):
        self.net, self.masked = network(), masked
        self.optimizer = keras.optimizers.Adam(0.01, epsilon=1e-8)
        self.optimizer.build(self.net.trainable_variables)

    @tf.function
    def step(self, word_ids, labels):
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, self.net(word_ids, training=True))
            if self.masked:
                counted = tf.cast(word_ids != 0, losses.dtype)
                loss = tf.reduce_sum(losses * counted) / tf.reduce_sum(counted)
            else:
                loss = tf.reduce_mean(losses)
        variables = self.net.trainable_variables
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, variables), 1.0)
        self.optimizer.apply([tf.convert_to_tensor(gradient) for gradient in gradients], variables)
        return loss


def program(masked):
    trainer = Trainer(masked)
    # tfport >
    return {
        "module": trainer,
        "step": trainer.step,
        "outputs": lambda word_ids: {"logits": trainer.net(word_ids)},
    }
    # < tfport


def right():
    return program(True)


def wrong():
    return program(False)
