"""A character model: GRUCell in dynamic_rnn, the state is fed in and carried from batch to batch by the caller."""

import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()

SEQLEN, ALPHASIZE, INTERNALSIZE = 5, 7, 6

lr = 0.01
X = tf.placeholder(tf.uint8, [None, None], name="X")
Y_ = tf.placeholder(tf.uint8, [None, None], name="Y_")
Hin = tf.placeholder(tf.float32, [None, INTERNALSIZE], name="Hin")
Xo = tf.one_hot(X, ALPHASIZE, 1.0, 0.0)
Yo_ = tf.one_hot(Y_, ALPHASIZE, 1.0, 0.0)

cell = tf.nn.rnn_cell.GRUCell(INTERNALSIZE)
Yr, H = tf.nn.dynamic_rnn(cell, Xo, dtype=tf.float32, initial_state=Hin)
H = tf.identity(H, name="H")

# readout, all time steps in one product
W = tf.Variable(tf.truncated_normal([INTERNALSIZE, ALPHASIZE], stddev=0.2), name="readout_W")
b = tf.Variable(tf.zeros([ALPHASIZE]), name="readout_b")
Yflat = tf.reshape(Yr, [-1, INTERNALSIZE])
Ylogits = tf.matmul(Yflat, W) + b
Yflat_ = tf.reshape(Yo_, [-1, ALPHASIZE])
loss = tf.nn.softmax_cross_entropy_with_logits_v2(logits=Ylogits, labels=Yflat_)
loss = tf.reshape(loss, [tf.shape(X)[0], -1])
Yo = tf.nn.softmax(Ylogits, name="Yo")
seqloss = tf.reduce_mean(loss, 1)
batchloss = tf.reduce_mean(seqloss)
train_step = tf.train.RMSPropOptimizer(lr, decay=0.9, momentum=0.5).minimize(batchloss)


# tfport >
def graph():
    return {"outputs": {"Yo": Yo, "H": H}, "loss": batchloss, "train_op": train_step}


# < tfport
