"""Skip-gram with NCE, after the basic word2vec tutorial: a graph in a `with graph.as_default()` block."""

import collections
import math
import random

import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_eager_execution()

vocabulary_size = 20
batch_size = 8
embedding_size = 6
skip_window = 1
num_skips = 2
num_sampled = 4
valid_examples = np.array([1, 3, 5, 7])
words = np.random.RandomState(0).zipf(1.3, size=4000) % vocabulary_size
data_index = 0


def generate_batch(batch_size, num_skips, skip_window):
    global data_index
    batch = np.ndarray(shape=(batch_size,), dtype=np.int32)
    labels = np.ndarray(shape=(batch_size, 1), dtype=np.int32)
    span = 2 * skip_window + 1
    buffer = collections.deque(maxlen=span)
    for _ in range(span):
        buffer.append(words[data_index])
        data_index = (data_index + 1) % len(words)
    for i in range(batch_size // num_skips):
        context_words = [w for w in range(span) if w != skip_window]
        for j, context_word in enumerate(random.sample(context_words, num_skips)):
            batch[i * num_skips + j] = buffer[skip_window]
            labels[i * num_skips + j, 0] = buffer[context_word]
        buffer.append(words[data_index])
        data_index = (data_index + 1) % len(words)
    return batch, labels


def build():
    train_inputs = tf.placeholder(tf.int32, shape=[batch_size], name="train_inputs")
    train_labels = tf.placeholder(tf.int32, shape=[batch_size, 1], name="train_labels")
    valid_dataset = tf.constant(valid_examples, dtype=tf.int32)
    with tf.device("/cpu:0"):
        with tf.name_scope("embeddings"):
            embeddings = tf.Variable(tf.random_uniform([vocabulary_size, embedding_size], -1.0, 1.0))
            embed = tf.nn.embedding_lookup(embeddings, train_inputs)
        with tf.name_scope("weights"):
            nce_weights = tf.Variable(
                tf.truncated_normal([vocabulary_size, embedding_size], stddev=1.0 / math.sqrt(embedding_size))
            )
        with tf.name_scope("biases"):
            nce_biases = tf.Variable(tf.zeros([vocabulary_size]))
    with tf.name_scope("loss"):
        loss = tf.reduce_mean(
            tf.nn.nce_loss(
                weights=nce_weights,
                biases=nce_biases,
                labels=train_labels,
                inputs=embed,
                num_sampled=num_sampled,
                num_classes=vocabulary_size,
            )
        )
    with tf.name_scope("optimizer"):
        optimizer = tf.train.GradientDescentOptimizer(1.0).minimize(loss)
    norm = tf.sqrt(tf.reduce_sum(tf.square(embeddings), 1, keepdims=True))
    normalized_embeddings = embeddings / norm
    valid_embeddings = tf.nn.embedding_lookup(normalized_embeddings, valid_dataset)
    similarity = tf.matmul(valid_embeddings, normalized_embeddings, transpose_b=True)
    return loss, optimizer, similarity


# tfport >
def graph():
    loss, optimizer, similarity = build()
    return {"outputs": {"similarity": similarity}, "loss": loss, "train_op": optimizer}


# < tfport


def next_batch(step):
    global data_index
    random.seed(step)
    data_index = step * batch_size
    inputs, labels = generate_batch(batch_size, num_skips, skip_window)
    return {"train_inputs": inputs, "train_labels": labels}
