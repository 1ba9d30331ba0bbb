"""The segmentation net as a tf.Module."""

import keras
import tensorflow as tf


def he(shape, dtype):
    fan_in = shape[0] * shape[1] * shape[2]
    stddev = (1.0 / fan_in) ** 0.5 / 0.87962566103423978
    return tf.random.truncated_normal(shape, stddev=stddev, dtype=dtype)


def upsample(x, size, aligned):
    """TF2 has no align_corners: the rows that it takes are written out."""
    if not aligned:
        return tf.image.resize(x, size)
    for axis in (1, 2):
        n, m = x.shape[axis], size[axis - 1]
        at = tf.cast(tf.range(m), x.dtype) * ((n - 1) / (m - 1))
        low = tf.minimum(tf.cast(tf.floor(at), tf.int32), n - 1)
        share = at - tf.cast(low, x.dtype)
        share = tf.reshape(share, [-1, 1, 1] if axis == 1 else [-1, 1])
        x = tf.gather(x, low, axis=axis) * (1 - share) + tf.gather(x, tf.minimum(low + 1, n - 1), axis=axis) * share
    return x


class Segmenter(tf.Module):
    def __init__(self, aligned, dtype):
        super().__init__(name="segmenter")
        self.aligned = aligned
        shapes = {"conv1": [3, 3, 2, 4], "aspp1": [3, 3, 4, 4], "aspp2": [3, 3, 4, 4]}
        shapes |= {"pool": [1, 1, 4, 4], "logits": [1, 1, 12, 3]}
        self.kernels = {name: tf.Variable(he(shape, dtype), name=f"{name}_kernel") for name, shape in shapes.items()}
        self.biases = {
            name: tf.Variable(tf.zeros(shape[-1:], dtype), name=f"{name}_bias") for name, shape in shapes.items()
        }
        self.optimizer = keras.optimizers.SGD(keras.optimizers.schedules.PolynomialDecay(0.1, 5, power=0.9))
        self.optimizer.build(self.trainable_variables)

    def conv(self, x, name, stride=1, dilation=1):
        return tf.nn.conv2d(x, self.kernels[name], stride, "SAME", dilations=dilation) + self.biases[name]

    @tf.function
    def __call__(self, images):
        x = tf.nn.relu(self.conv(images, "conv1", stride=2))
        pooled = tf.nn.relu(self.conv(tf.reduce_mean(x, [1, 2], keepdims=True), "pool"))
        branches = [tf.nn.relu(self.conv(x, f"aspp{rate}", dilation=rate)) for rate in (1, 2)]
        x = self.conv(tf.concat([*branches, tf.broadcast_to(pooled, branches[0].shape)], axis=3), "logits")
        return upsample(x, [8, 8], self.aligned)

    @tf.function
    def train_step(self, images, labels):
        with tf.GradientTape() as tape:
            counted = tf.reshape(labels, [-1]) < 3
            logits = tf.boolean_mask(tf.reshape(self(images), [-1, 3]), counted)
            known = tf.boolean_mask(tf.reshape(labels, [-1]), counted)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(known, logits))
            loss += tf.add_n([1e-3 * tf.nn.l2_loss(kernel) for kernel in self.kernels.values()])
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return loss


def program(aligned, dtype):
    net = Segmenter(aligned, dtype)
    # tfport >
    return {"module": net, "step": net.train_step, "outputs": lambda images: {"logits": net(images)}}
    # < tfport


def right(dtype="float32"):
    return program(True, dtype)


def wrong(dtype="float32"):
    return program(False, dtype)
