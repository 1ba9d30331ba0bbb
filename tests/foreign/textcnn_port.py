"""The sentence classifier in Keras 3."""

import keras
from keras import layers, ops


def half_l2(w):
    return 0.1 * ops.sum(ops.square(w)) / 2


class Words(layers.Embedding):
    """Looks up by a product: Keras 3's Adam squares each slice of a sparse gradient by itself, TF1's does not."""

    def call(self, words):
        return ops.matmul(ops.one_hot(words, self.input_dim, dtype=self.compute_dtype), self.embeddings)


def build(rate):
    tenth = keras.initializers.Constant(0.1)
    x = keras.Input([8], dtype="int32", name="input_x")
    uniform = keras.initializers.RandomUniform(-1.0, 1.0)
    h = Words(15, 4, embeddings_initializer=uniform, name="words")(x)
    h = layers.Reshape([8, 4, 1])(h)
    pooled = []
    for size in (2, 3):
        conv = layers.Conv2D(
            4,
            [size, 4],
            activation="relu",
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.1),
            bias_initializer=tenth,
            name=f"conv{size}",
        )
        pooled.append(layers.GlobalMaxPooling2D()(conv(h)))
    h = layers.Dropout(rate, name="dropout")(layers.Concatenate()(pooled))
    scores = layers.Dense(
        2, bias_initializer=tenth, kernel_regularizer=half_l2, bias_regularizer=half_l2, name="scores"
    )(h)
    model = keras.Model(x, scores, name="text_cnn")
    model.compile(keras.optimizers.Adam(1e-2, epsilon=1e-8), keras.losses.CategoricalCrossentropy(from_logits=True))
    return model


def right():
    return build(0.5)


def wrong():
    return build(0.2)
