"""The estimator's net as a compiled Keras 3 model."""

import keras
from keras import layers


class HalfL2(keras.regularizers.Regularizer):
    def __call__(self, kernel):
        return 0.05 * keras.ops.sum(keras.ops.square(kernel)) / 2


def build(penalised):
    penalty = HalfL2() if penalised else None
    continuous = keras.Input([3], name="continuous")
    category = keras.Input([], dtype="int32", name="category")
    one_hot = layers.Lambda(lambda c: keras.ops.one_hot(c, 4), output_shape=(4,))(category)
    x = layers.Concatenate()([continuous, one_hot])
    for number, units in enumerate([8, 6]):
        x = layers.Dense(units, "relu", kernel_regularizer=penalty, name=f"hidden{number}")(x)
    logits = layers.Dense(3, name="logits")(x)
    model = keras.Model([continuous, category], logits, name="net")
    model.compile(
        keras.optimizers.Adagrad(0.1, initial_accumulator_value=0.1, epsilon=0.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def right():
    return build(True)


def wrong():
    return build(False)
