"""DCGAN: conv2d, deconv2d, linear and a batch_norm class in ops.py style, with reuse_variables()."""

import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()


class batch_norm:
    def __init__(self, epsilon=1e-5, momentum=0.9, name="batch_norm"):
        self.epsilon = epsilon
        self.momentum = momentum
        self.name = name

    def __call__(self, x, train=True):
        with tf.variable_scope(self.name):
            dim = x.get_shape().as_list()[-1]
            beta = tf.get_variable("beta", [dim], initializer=tf.constant_initializer(0.0))
            gamma = tf.get_variable("gamma", [dim], initializer=tf.random_normal_initializer(1.0, 0.02))
            pop_mean = tf.get_variable("pop_mean", [dim], initializer=tf.constant_initializer(0.0), trainable=False)
            pop_var = tf.get_variable("pop_var", [dim], initializer=tf.constant_initializer(1.0), trainable=False)
            if not train:
                return tf.nn.batch_normalization(x, pop_mean, pop_var, beta, gamma, self.epsilon)
            mean, var = tf.nn.moments(x, list(range(len(x.get_shape()) - 1)))
            update_mean = tf.assign(pop_mean, pop_mean * self.momentum + mean * (1 - self.momentum))
            update_var = tf.assign(pop_var, pop_var * self.momentum + var * (1 - self.momentum))
            with tf.control_dependencies([update_mean, update_var]):
                return tf.nn.batch_normalization(x, mean, var, beta, gamma, self.epsilon)


def conv2d(input_, output_dim, k_h=5, k_w=5, d_h=2, d_w=2, stddev=0.02, name="conv2d"):
    with tf.variable_scope(name):
        w = tf.get_variable(
            "w",
            [k_h, k_w, input_.get_shape()[-1], output_dim],
            initializer=tf.truncated_normal_initializer(stddev=stddev),
        )
        conv = tf.nn.conv2d(input_, w, strides=[1, d_h, d_w, 1], padding="SAME")
        biases = tf.get_variable("biases", [output_dim], initializer=tf.constant_initializer(0.0))
        return tf.reshape(tf.nn.bias_add(conv, biases), tf.shape(conv))


def deconv2d(input_, output_shape, k_h=5, k_w=5, d_h=2, d_w=2, stddev=0.02, name="deconv2d"):
    with tf.variable_scope(name):
        # filter : [height, width, output_channels, in_channels]
        w = tf.get_variable(
            "w",
            [k_h, k_w, output_shape[-1], input_.get_shape()[-1]],
            initializer=tf.random_normal_initializer(stddev=stddev),
        )
        deconv = tf.nn.conv2d_transpose(input_, w, output_shape=output_shape, strides=[1, d_h, d_w, 1])
        biases = tf.get_variable("biases", [output_shape[-1]], initializer=tf.constant_initializer(0.0))
        return tf.reshape(tf.nn.bias_add(deconv, biases), deconv.get_shape())


def linear(input_, output_size, scope=None, stddev=0.02, bias_start=0.0):
    shape = input_.get_shape().as_list()
    with tf.variable_scope(scope or "Linear"):
        matrix = tf.get_variable(
            "Matrix", [shape[1], output_size], tf.float32, tf.random_normal_initializer(stddev=stddev)
        )
        bias = tf.get_variable("bias", [output_size], initializer=tf.constant_initializer(bias_start))
        return tf.matmul(input_, matrix) + bias


def lrelu(x, leak=0.2, name="lrelu"):
    return tf.maximum(x, leak * x)


class DCGAN:
    def __init__(self, batch_size=4, z_dim=4, gf_dim=2, df_dim=2, learning_rate=0.002, beta1=0.5):
        self.batch_size, self.z_dim, self.gf_dim, self.df_dim = batch_size, z_dim, gf_dim, df_dim
        self.learning_rate, self.beta1 = learning_rate, beta1
        self.g_bn0 = batch_norm(name="g_bn0")
        self.g_bn1 = batch_norm(name="g_bn1")
        self.build_model()

    def build_model(self):
        self.images = tf.placeholder(tf.float32, [self.batch_size, 8, 8, 1], name="real_images")
        self.z = tf.placeholder(tf.float32, [self.batch_size, self.z_dim], name="z")

        self.G = self.generator(self.z)
        self.D, self.D_logits = self.discriminator(self.images)
        self.D_, self.D_logits_ = self.discriminator(self.G, reuse=True)
        self.sampler = self.generator(self.z, train=False)

        def cross_entropy(x, y):
            return tf.nn.sigmoid_cross_entropy_with_logits(logits=x, labels=y)

        self.d_loss_real = tf.reduce_mean(cross_entropy(self.D_logits, tf.ones_like(self.D)))
        self.d_loss_fake = tf.reduce_mean(cross_entropy(self.D_logits_, tf.zeros_like(self.D_)))
        self.g_loss = tf.reduce_mean(cross_entropy(self.D_logits_, tf.ones_like(self.D_)))
        self.d_loss = self.d_loss_real + self.d_loss_fake

        t_vars = tf.trainable_variables()
        self.d_vars = [var for var in t_vars if "d_" in var.name]
        self.g_vars = [var for var in t_vars if "g_" in var.name]

    def discriminator(self, image, reuse=False):
        with tf.variable_scope("discriminator") as scope:
            if reuse:
                scope.reuse_variables()
            h0 = lrelu(conv2d(image, self.df_dim, name="d_h0_conv"))
            h1 = lrelu(conv2d(h0, self.df_dim * 2, name="d_h1_conv"))
            h2 = linear(tf.reshape(h1, [self.batch_size, -1]), 1, "d_h2_lin")
            return tf.nn.sigmoid(h2), h2

    def generator(self, z, train=True):
        with tf.variable_scope("generator") as scope:
            if not train:
                scope.reuse_variables()
            z_ = linear(z, self.gf_dim * 2 * 2 * 2, "g_h0_lin")
            h0 = tf.nn.relu(self.g_bn0(tf.reshape(z_, [-1, 2, 2, self.gf_dim * 2]), train=train))
            h1 = deconv2d(h0, [self.batch_size, 4, 4, self.gf_dim], name="g_h1")
            h1 = tf.nn.relu(self.g_bn1(h1, train=train))
            h2 = deconv2d(h1, [self.batch_size, 8, 8, 1], name="g_h2")
            return tf.nn.tanh(h2)

    def optimizers(self):
        d_optim = tf.train.AdamOptimizer(self.learning_rate, beta1=self.beta1).minimize(
            self.d_loss, var_list=self.d_vars
        )
        g_optim = tf.train.AdamOptimizer(self.learning_rate, beta1=self.beta1).minimize(
            self.g_loss, var_list=self.g_vars
        )
        return d_optim, g_optim


def next_batch(step):
    rng = np.random.RandomState(step)
    return {
        "real_images": rng.uniform(-1, 1, [4, 8, 8, 1]).astype(np.float32),
        "z": rng.uniform(-1, 1, [4, 4]).astype(np.float32),
    }


# tfport >
def graph():
    dcgan = DCGAN()
    d_optim, g_optim = dcgan.optimizers()
    return {
        "outputs": {"sampler": dcgan.sampler},
        "losses": {"d": dcgan.d_loss, "g": dcgan.g_loss},
        "train_ops": {"d": d_optim, "g": g_optim},
    }


# < tfport
