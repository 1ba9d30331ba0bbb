"""A GAN whose scopes are collected by name; D is trained first, then G on what D has become, as session.run does it."""

import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()

# Training Params
learning_rate = 0.01
batch_size = 8
image_dim = 12
gen_hidden_dim = 8
disc_hidden_dim = 8
noise_dim = 4


def glorot_init(shape):
    return tf.random_normal(shape=shape, stddev=1.0 / tf.sqrt(shape[0] / 2.0))


weights = {
    "gen_hidden1": tf.Variable(glorot_init([noise_dim, gen_hidden_dim])),
    "gen_out": tf.Variable(glorot_init([gen_hidden_dim, image_dim])),
    "disc_hidden1": tf.Variable(glorot_init([image_dim, disc_hidden_dim])),
    "disc_out": tf.Variable(glorot_init([disc_hidden_dim, 1])),
}
biases = {
    "gen_hidden1": tf.Variable(tf.zeros([gen_hidden_dim])),
    "gen_out": tf.Variable(tf.zeros([image_dim])),
    "disc_hidden1": tf.Variable(tf.zeros([disc_hidden_dim])),
    "disc_out": tf.Variable(tf.zeros([1])),
}


def generator(x):
    hidden_layer = tf.nn.relu(tf.add(tf.matmul(x, weights["gen_hidden1"]), biases["gen_hidden1"]))
    return tf.nn.sigmoid(tf.add(tf.matmul(hidden_layer, weights["gen_out"]), biases["gen_out"]))


def discriminator(x):
    hidden_layer = tf.nn.relu(tf.add(tf.matmul(x, weights["disc_hidden1"]), biases["disc_hidden1"]))
    return tf.nn.sigmoid(tf.add(tf.matmul(hidden_layer, weights["disc_out"]), biases["disc_out"]))


gen_input = tf.placeholder(tf.float32, shape=[None, noise_dim], name="input_noise")
disc_input = tf.placeholder(tf.float32, shape=[None, image_dim], name="disc_input")
gen_sample = generator(gen_input)
disc_real = discriminator(disc_input)
disc_fake = discriminator(gen_sample)

gen_loss = -tf.reduce_mean(tf.log(disc_fake))
disc_loss = -tf.reduce_mean(tf.log(disc_real) + tf.log(1.0 - disc_fake))

gen_vars = [weights["gen_hidden1"], weights["gen_out"], biases["gen_hidden1"], biases["gen_out"]]
disc_vars = [weights["disc_hidden1"], weights["disc_out"], biases["disc_hidden1"], biases["disc_out"]]
train_gen = tf.train.AdamOptimizer(learning_rate=learning_rate).minimize(gen_loss, var_list=gen_vars)
train_disc = tf.train.AdamOptimizer(learning_rate=learning_rate).minimize(disc_loss, var_list=disc_vars)


def next_batch(step):
    rng = np.random.RandomState(step)
    return {
        "disc_input": rng.uniform(size=[batch_size, image_dim]).astype("float32"),
        "input_noise": rng.uniform(-1.0, 1.0, size=[batch_size, noise_dim]).astype("float32"),
    }


def train(sess, batch):
    feed_dict = {disc_input: batch["disc_input"], gen_input: batch["input_noise"]}
    _, dl = sess.run([train_disc, disc_loss], feed_dict=feed_dict)
    _, gl = sess.run([train_gen, gen_loss], feed_dict=feed_dict)
    return gl, dl


# tfport >
def graph():
    return {
        "outputs": {"sample": gen_sample, "verdict": disc_real},
        "losses": {"disc": disc_loss, "gen": gen_loss},
        "train_ops": {"disc": train_disc, "gen": train_gen},
    }


# < tfport
