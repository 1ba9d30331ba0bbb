"""Variational autoencoder on binarised digits. Everything is global, as in the notebook it grew out of."""

import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()

mb_size = 8
z_dim = 4
X_dim = 36
h_dim = 12
lr = 1e-2


def xavier_init(size):
    in_dim = size[0]
    return tf.random_normal(shape=size, stddev=1.0 / tf.sqrt(in_dim / 2.0))


X = tf.placeholder(tf.float32, shape=[None, X_dim])
z = tf.placeholder(tf.float32, shape=[None, z_dim])

Q_W1 = tf.Variable(xavier_init([X_dim, h_dim]))
Q_b1 = tf.Variable(tf.zeros(shape=[h_dim]))
Q_W2_mu = tf.Variable(xavier_init([h_dim, z_dim]))
Q_b2_mu = tf.Variable(tf.zeros(shape=[z_dim]))
Q_W2_sigma = tf.Variable(xavier_init([h_dim, z_dim]))
Q_b2_sigma = tf.Variable(tf.zeros(shape=[z_dim]))
P_W1 = tf.Variable(xavier_init([z_dim, h_dim]))
P_b1 = tf.Variable(tf.zeros(shape=[h_dim]))
P_W2 = tf.Variable(xavier_init([h_dim, X_dim]))
P_b2 = tf.Variable(tf.zeros(shape=[X_dim]))


def Q(X):
    h = tf.nn.relu(tf.matmul(X, Q_W1) + Q_b1)
    z_mu = tf.matmul(h, Q_W2_mu) + Q_b2_mu
    z_logvar = tf.matmul(h, Q_W2_sigma) + Q_b2_sigma
    return z_mu, z_logvar


def sample_z(mu, log_var):
    eps = tf.random_normal(shape=tf.shape(mu))
    return mu + tf.exp(log_var / 2) * eps


def P(z):
    h = tf.nn.relu(tf.matmul(z, P_W1) + P_b1)
    logits = tf.matmul(h, P_W2) + P_b2
    prob = tf.nn.sigmoid(logits)
    return prob, logits


z_mu, z_logvar = Q(X)
z_sample = sample_z(z_mu, z_logvar)
_, logits = P(z_sample)
X_samples, _ = P(z)

# E[log P(X|z)]
recon_loss = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(logits=logits, labels=X), 1)
# D_KL(Q(z|X) || P(z)); both are Gaussian
kl_loss = 0.5 * tf.reduce_sum(tf.exp(z_logvar) + z_mu**2 - 1.0 - z_logvar, 1)
vae_loss = tf.reduce_mean(recon_loss + kl_loss)

solver = tf.train.AdamOptimizer(lr).minimize(vae_loss)


def next_batch(step):
    rng = np.random.RandomState(step)
    return {
        "X": (rng.uniform(size=[mb_size, X_dim]) > 0.6).astype("float32"),
        "z": rng.normal(size=[mb_size, z_dim]).astype("float32"),
    }


def main():
    sess = tf.Session()
    sess.run(tf.global_variables_initializer())
    for it in range(1000):
        batch = next_batch(it)
        _, loss = sess.run([solver, vae_loss], feed_dict={X: batch["X"]})
        if it % 100 == 0:
            print(f"Iter: {it}, loss: {loss:.4}")


# tfport >
def graph():
    return {
        "inputs": {"X": X, "z": z},
        "outputs": {"mu": z_mu, "samples": X_samples},
        "loss": vae_loss,
        "train_op": solver,
    }


# < tfport

if __name__ == "__main__":
    main()
