"""The word model in Keras 3, compiled; unit_forget_bias is off, since the original adds nothing to the forget gate."""

import keras
from keras import layers, ops


class PerExample(keras.losses.Loss):
    """Summed over time, averaged over the batch."""

    def call(self, y_true, y_pred):
        losses = keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)
        return ops.sum(losses, axis=-1)


def build(forget):
    start = keras.initializers.RandomUniform(-0.3, 0.3)
    settings = {"return_sequences": True, "kernel_initializer": start, "recurrent_initializer": start}
    model = keras.Sequential(
        [
            keras.Input([4], dtype="int32", name="input_data"),
            layers.Embedding(9, 6, embeddings_initializer=start, name="embedding"),
            layers.LSTM(6, unit_forget_bias=forget, name="lstm1", **settings),
            layers.LSTM(6, unit_forget_bias=forget, name="lstm2", **settings),
            layers.Dense(9, kernel_initializer=start, bias_initializer=start, name="softmax"),
            layers.Reshape([-1, 9]),
        ]
    )
    model.compile(keras.optimizers.SGD(1.0, global_clipnorm=0.5), PerExample())
    return model


def right():
    return build(False)


def wrong():
    return build(True)
