"""Improved Wasserstein GAN on a mixture of Gaussians; parameters live in a dictionary, as in the authors' tflib."""

import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_eager_execution()

DIM = 16
BATCH_SIZE = 8
CRITIC_ITERS = 2
LAMBDA = 0.1
_params = {}


def param(name, *args, **kwargs):
    if name not in _params:
        kwargs["name"] = name
        _params[name] = tf.Variable(*args, **kwargs)
    return _params[name]


def params_with_name(name):
    return [p for n, p in _params.items() if name in n]


def Linear(name, input_dim, output_dim, inputs):
    stdev = np.sqrt(2.0 / (input_dim + output_dim))
    values = np.random.uniform(-stdev * np.sqrt(3), stdev * np.sqrt(3), (input_dim, output_dim)).astype("float32")
    with tf.name_scope(name):
        W = param(name + ".W", values)
        b = param(name + ".b", np.zeros(output_dim, dtype="float32"))
        return tf.nn.bias_add(tf.matmul(inputs, W), b)


def ReLULayer(name, n_in, n_out, inputs):
    return tf.nn.relu(Linear(name + ".Linear", n_in, n_out, inputs))


def Generator(noise):
    output = ReLULayer("Generator.1", 2, DIM, noise)
    output = ReLULayer("Generator.2", DIM, DIM, output)
    return Linear("Generator.4", DIM, 2, output)


def Discriminator(inputs):
    output = ReLULayer("Discriminator.1", 2, DIM, inputs)
    output = ReLULayer("Discriminator.2", DIM, DIM, output)
    output = Linear("Discriminator.4", DIM, 1, output)
    return tf.reshape(output, [-1])


def build():
    real_data = tf.placeholder(tf.float32, shape=[None, 2], name="real_data")
    noise = tf.random_normal([tf.shape(real_data)[0], 2])
    fake_data = Generator(noise)

    disc_real = Discriminator(real_data)
    disc_fake = Discriminator(fake_data)

    # WGAN loss
    disc_cost = tf.reduce_mean(disc_fake) - tf.reduce_mean(disc_real)
    gen_cost = -tf.reduce_mean(disc_fake)

    # WGAN gradient penalty
    alpha = tf.random_uniform(shape=[tf.shape(real_data)[0], 1], minval=0.0, maxval=1.0)
    interpolates = alpha * real_data + ((1 - alpha) * fake_data)
    disc_interpolates = Discriminator(interpolates)
    gradients = tf.gradients(disc_interpolates, [interpolates])[0]
    slopes = tf.sqrt(tf.reduce_sum(tf.square(gradients), reduction_indices=[1]))
    gradient_penalty = tf.reduce_mean((slopes - 1) ** 2)
    disc_cost += LAMBDA * gradient_penalty

    disc_params = params_with_name("Discriminator")
    gen_params = params_with_name("Generator")
    disc_train_op = tf.train.AdamOptimizer(learning_rate=1e-3, beta1=0.5, beta2=0.9).minimize(
        disc_cost, var_list=disc_params
    )
    gen_train_op = tf.train.AdamOptimizer(learning_rate=1e-3, beta1=0.5, beta2=0.9).minimize(
        gen_cost, var_list=gen_params
    )
    return real_data, disc_real, disc_cost, gen_cost, disc_train_op, gen_train_op


def next_batch(step):
    rng = np.random.RandomState(step)
    centers = 2 * np.array([(1, 0), (-1, 0), (0, 1), (0, -1)], dtype="float32")
    points = rng.randn(BATCH_SIZE, 2) * 0.2 + centers[rng.randint(4, size=BATCH_SIZE)]
    return {"real_data": (points / 1.414).astype("float32")}


# tfport >
def graph():
    _, disc_real, disc_cost, gen_cost, disc_train_op, gen_train_op = build()
    return {
        "outputs": {"disc_real": disc_real},
        "losses": {"disc": disc_cost, "gen": gen_cost},
        "train_ops": {"disc": disc_train_op, "gen": gen_train_op},
    }


# < tfport

if __name__ == "__main__":
    data, _, d_cost, g_cost, d_op, g_op = build()
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for iteration in range(10000):
            for _ in range(CRITIC_ITERS):
                session.run([d_cost, d_op], feed_dict={data: next_batch(iteration)["real_data"]})
            session.run(g_op, feed_dict={data: next_batch(iteration)["real_data"]})
