"""A PyTorch sequence classifier: nn.Embedding, nn.GRU with two layers, the last state, SGD."""

import numpy as np
import torch
import torch.nn as nn


class RNN(nn.Module):
    def __init__(self, vocab_size=10, embedding_dim=5, hidden_dim=4, output_dim=3):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embedding_dim)
        self.rnn = nn.GRU(embedding_dim, hidden_dim, num_layers=2, batch_first=True)
        self.fc = nn.Linear(hidden_dim, output_dim)

    def forward(self, text):
        output, hidden = self.rnn(self.embedding(text))
        return self.fc(hidden[-1])


def next_batch(step):
    rng = np.random.RandomState(step)
    return {"text": rng.randint(10, size=[6, 5]), "label": rng.randint(3, size=[6])}


# tfport >
def graph():
    model = RNN()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    criterion = nn.CrossEntropyLoss(reduction="sum")

    def step(text, label):
        optimizer.zero_grad()
        loss = criterion(model(text), label)
        loss.backward()
        optimizer.step()
        return loss

    return {"module": model, "optimizer": optimizer, "step": step}


# < tfport
