"""CBOW with a sampled softmax and Adagrad, after an old course assignment: module-level constants, a Graph, an eval."""

import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()

batch_size, context, vocabulary_size, embedding_size, num_sampled = 8, 2, 30, 6, 5


def model(train_dataset, train_labels):
    embeddings = tf.Variable(tf.random_uniform([vocabulary_size, embedding_size], -1.0, 1.0), name="embeddings")
    softmax_weights = tf.Variable(
        tf.truncated_normal([vocabulary_size, embedding_size], stddev=1.0 / np.sqrt(embedding_size)), name="softmax_w"
    )
    softmax_biases = tf.Variable(tf.zeros([vocabulary_size]), name="softmax_b")

    # sum of the context's vectors, one lookup a position
    embed = None
    for i in range(2 * context):
        embedding_i = tf.nn.embedding_lookup(embeddings, train_dataset[:, i])
        emb_x, emb_y = embedding_i.get_shape().as_list()
        embed = (
            tf.reshape(embedding_i, [emb_x, emb_y, 1])
            if embed is None
            else tf.concat([embed, tf.reshape(embedding_i, [emb_x, emb_y, 1])], 2)
        )
    avg_embed = tf.reduce_mean(embed, 2, keepdims=False)
    loss = tf.reduce_mean(
        tf.nn.sampled_softmax_loss(
            weights=softmax_weights,
            biases=softmax_biases,
            inputs=avg_embed,
            labels=train_labels,
            num_sampled=num_sampled,
            num_classes=vocabulary_size,
        )
    )
    optimizer = tf.train.AdagradOptimizer(1.0).minimize(loss)
    norm = tf.sqrt(tf.reduce_sum(tf.square(embeddings), 1, keep_dims=True))
    normalized_embeddings = embeddings / norm
    return avg_embed, normalized_embeddings, loss, optimizer


def next_batch(step):
    rng = np.random.RandomState(step)
    centre = rng.randint(2, vocabulary_size - 2, size=batch_size)
    window = np.stack([centre - 2, centre - 1, centre + 1, centre + 2], axis=1)
    return {"dataset": window.astype("int32"), "labels": centre[:, None].astype("int32")}


# tfport >
def graph():
    dataset = tf.placeholder(tf.int32, shape=[batch_size, 2 * context], name="dataset")
    labels = tf.placeholder(tf.int32, shape=[batch_size, 1], name="labels")
    avg_embed, normalized, loss, optimizer = model(dataset, labels)
    return {"outputs": {"avg": avg_embed, "normalized": normalized}, "loss": loss, "train_op": optimizer}


# < tfport
