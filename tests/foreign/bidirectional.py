"""Tagging with a bidirectional LSTM over padded sentences: sequence_length, transposed outputs, a masked loss."""

import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()

n_words, n_tags, hidden, maxlen = 12, 4, 5, 6


class Tagger:
    def __init__(self):
        self.word_ids = tf.placeholder(tf.int32, shape=[None, maxlen], name="word_ids")
        self.sequence_lengths = tf.placeholder(tf.int32, shape=[None], name="sequence_lengths")
        self.labels = tf.placeholder(tf.int32, shape=[None, maxlen], name="labels")
        with tf.variable_scope("words"):
            _word_embeddings = tf.get_variable("_word_embeddings", [n_words, 5], tf.float32)
            word_embeddings = tf.nn.embedding_lookup(_word_embeddings, self.word_ids, name="word_embeddings")
        with tf.variable_scope("bi-lstm"):
            cell_fw = tf.nn.rnn_cell.LSTMCell(hidden)
            cell_bw = tf.nn.rnn_cell.LSTMCell(hidden)
            (output_fw, output_bw), _ = tf.nn.bidirectional_dynamic_rnn(
                cell_fw, cell_bw, word_embeddings, sequence_length=self.sequence_lengths, dtype=tf.float32
            )
            output = tf.concat([output_fw, output_bw], axis=-1)
        with tf.variable_scope("proj"):
            W = tf.get_variable("W", dtype=tf.float32, shape=[2 * hidden, n_tags])
            b = tf.get_variable("b", shape=[n_tags], dtype=tf.float32, initializer=tf.zeros_initializer())
            nsteps = tf.shape(output)[1]
            output = tf.reshape(output, [-1, 2 * hidden])
            self.logits = tf.reshape(tf.matmul(output, W) + b, [-1, nsteps, n_tags])
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(logits=self.logits, labels=self.labels)
        mask = tf.sequence_mask(self.sequence_lengths, maxlen)
        self.loss = tf.reduce_mean(tf.boolean_mask(losses, mask))
        optimizer = tf.train.AdamOptimizer(0.01)
        grads, vs = zip(*optimizer.compute_gradients(self.loss))
        grads, gnorm = tf.clip_by_global_norm(grads, 1.0)
        self.train_op = optimizer.apply_gradients(zip(grads, vs))


def next_batch(step):
    rng = np.random.RandomState(step)
    lengths = rng.randint(2, maxlen + 1, size=[4])
    words = rng.randint(1, n_words, size=[4, maxlen]) * (np.arange(maxlen) < lengths[:, None])
    return {
        "word_ids": words.astype("int32"),
        "sequence_lengths": lengths.astype("int32"),
        "labels": rng.randint(n_tags, size=[4, maxlen]).astype("int32"),
    }


# tfport >
def graph():
    tagger = Tagger()
    return {"outputs": {"logits": tagger.logits}, "loss": tagger.loss, "train_op": tagger.train_op}


# < tfport
