"""Translation with attention by hand: an encoder and a decoder of GRUCells unrolled in Python, teacher forcing."""

import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()

VOCAB, EMB, HID, SRC, TRG, PAD = 9, 5, 6, 5, 4, 0


class Seq2SeqModel:
    def __init__(self, learning_rate=0.05, max_gradient_norm=1.0):
        self.encoder_inputs = tf.placeholder(tf.int32, [None, SRC], name="encoder_inputs")
        self.decoder_inputs = tf.placeholder(tf.int32, [None, TRG], name="decoder_inputs")
        self.targets = tf.placeholder(tf.int32, [None, TRG], name="targets")
        self.learning_rate = tf.Variable(float(learning_rate), trainable=False, name="learning_rate")
        self.global_step = tf.Variable(0, trainable=False, name="global_step")

        with tf.variable_scope("encoder"):
            emb = tf.get_variable("embedding", [VOCAB, EMB])
            cell = tf.nn.rnn_cell.GRUCell(HID)
            inputs = tf.unstack(tf.nn.embedding_lookup(emb, self.encoder_inputs), axis=1)
            states, state = tf.nn.static_rnn(cell, inputs, dtype=tf.float32)
            self.memory = tf.stack(states, axis=1)
        self.logits = self.decode(state)
        weights = tf.cast(tf.not_equal(self.targets, PAD), tf.float32)
        crossent = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=self.targets, logits=self.logits)
        self.loss = tf.reduce_sum(crossent * weights) / tf.cast(tf.shape(self.targets)[0], tf.float32)
        params = tf.trainable_variables()
        clipped_gradients, self.norm = tf.clip_by_global_norm(tf.gradients(self.loss, params), max_gradient_norm)
        opt = tf.train.AdagradOptimizer(self.learning_rate)
        self.update = opt.apply_gradients(zip(clipped_gradients, params), global_step=self.global_step)

    def attention(self, query):
        # scaled multiplicative attention over the encoder's states; padding gets nothing
        Wa = tf.get_variable("attn_W", [HID, HID])
        scores = tf.einsum("bh,hk,bsk->bs", query, Wa, self.memory) / np.sqrt(float(HID)).astype("float32")
        scores += tf.cast(tf.equal(self.encoder_inputs, PAD), tf.float32) * -1e9
        alignments = tf.nn.softmax(scores)
        return tf.reduce_sum(tf.expand_dims(alignments, -1) * self.memory, axis=1)

    def decode(self, state):
        with tf.variable_scope("decoder") as scope:
            emb = tf.get_variable("embedding", [VOCAB, EMB])
            cell = tf.nn.rnn_cell.GRUCell(HID)
            outputs = []
            context = tf.zeros_like(state)
            for i, inp in enumerate(tf.unstack(tf.nn.embedding_lookup(emb, self.decoder_inputs), axis=1)):
                if i > 0:
                    scope.reuse_variables()
                output, state = cell(tf.concat([inp, context], 1), state)
                context = self.attention(state)
                W = tf.get_variable("proj_W", [2 * HID, VOCAB])
                b = tf.get_variable("proj_b", [VOCAB], initializer=tf.zeros_initializer())
                outputs.append(tf.matmul(tf.concat([output, context], 1), W) + b)
            return tf.stack(outputs, axis=1)


def next_batch(step):
    rng = np.random.RandomState(step)
    source = rng.randint(2, VOCAB, size=[4, SRC]) * (np.arange(SRC) < rng.randint(2, SRC + 1, size=[4, 1]))
    target = rng.randint(2, VOCAB, size=[4, TRG]) * (np.arange(TRG) < rng.randint(2, TRG + 1, size=[4, 1]))
    shifted = np.concatenate([np.ones([4, 1], "int64"), target[:, :-1]], axis=1)
    return {
        "encoder_inputs": source.astype("int32"),
        "decoder_inputs": shifted.astype("int32"),
        "targets": target.astype("int32"),
    }


# tfport >
def graph():
    model = Seq2SeqModel()
    return {"outputs": {"logits": model.logits}, "loss": model.loss, "train_op": model.update}


# < tfport
