"""The CIFAR net as a tf.Module; the averages are kept by tf.train.ExponentialMovingAverage, as before."""

import tensorflow as tf


class CifarNet(tf.Module):
    def __init__(self, alpha=0.1 / 9.0, staircase=True, dtype="float32"):
        super().__init__(name="cifar")

        def weight(shape, stddev, name):
            return tf.Variable(tf.random.truncated_normal(shape, stddev=stddev, dtype=dtype), name=name)

        self.alpha = alpha
        self.conv_kernel = weight([3, 3, 3, 8], 0.3, "conv_kernel")
        self.conv_bias = tf.Variable(tf.zeros([8], dtype), name="conv_bias")
        self.local_kernel = weight([72, 10], 0.04, "local_kernel")
        self.local_bias = tf.Variable(tf.fill([10], tf.constant(0.1, dtype)), name="local_bias")
        self.out_kernel = weight([10, 5], 0.1, "out_kernel")
        self.out_bias = tf.Variable(tf.zeros([5], dtype), name="out_bias")
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self.averages = [
            tf.Variable(each, trainable=False, name=f"{each.name.split(':')[0]}_average")
            for each in self.trainable_variables
        ]
        self.staircase = staircase

    @tf.function
    def __call__(self, images):
        x = tf.nn.relu(tf.nn.conv2d(images, self.conv_kernel, 1, "SAME") + self.conv_bias)
        x = tf.nn.max_pool2d(x, 3, 2, "SAME")
        x = tf.nn.local_response_normalization(x, 4, bias=1.0, alpha=self.alpha, beta=0.75)
        x = tf.reshape(x, [tf.shape(x)[0], -1])
        x = tf.nn.relu(x @ self.local_kernel + self.local_bias)
        return x @ self.out_kernel + self.out_bias

    def learning_rate(self):
        epochs = tf.cast(self.step, self.conv_kernel.dtype) / 3
        return 0.1 * 0.5 ** (tf.floor(epochs) if self.staircase else epochs)

    @tf.function
    def train_step(self, images, labels):
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, self(images))
            loss = tf.reduce_mean(losses) + 0.04 * tf.nn.l2_loss(self.local_kernel)
        rate = self.learning_rate()
        variables = self.trainable_variables
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(rate * gradient)
        self.step.assign_add(1)
        step = tf.cast(self.step, rate.dtype)
        decay = tf.minimum(tf.cast(0.999, rate.dtype), (1.0 + step) / (10.0 + step))
        for variable, average in zip(variables, self.averages, strict=True):
            average.assign_sub((1.0 - decay) * (average - variable))
        return loss


def program(dtype, **options):
    net = CifarNet(dtype=dtype, **options)
    # tfport >
    return {"module": net, "step": net.train_step, "outputs": lambda images: {"logits": net(images)}}
    # < tfport


def right(dtype="float32"):
    return program(dtype)


def wrong(dtype="float32"):
    return program(dtype, alpha=0.1)
