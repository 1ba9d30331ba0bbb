"""The PyTorch example net, small: F-functions, log_softmax, nll_loss, SGD with weight decay, StepLR."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim


class Net(nn.Module):
    def __init__(self):
        super(Net, self).__init__()
        self.conv1 = nn.Conv2d(1, 3, 3, 1)
        self.bn1 = nn.BatchNorm2d(3)
        self.conv2 = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.fc1 = nn.Linear(36, 8)
        self.fc2 = nn.Linear(8, 5)

    def forward(self, x):
        x = F.leaky_relu(self.bn1(self.conv1(x)))
        x = F.relu(self.conv2(x))
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        return F.log_softmax(self.fc2(x), dim=1)


def train(model, optimizer, scheduler, data, target):
    model.train()
    optimizer.zero_grad()
    output = model(data)
    loss = F.nll_loss(output, target)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    return loss


def next_batch(step):
    rng = np.random.RandomState(step)
    return {"data": rng.normal(size=[6, 1, 8, 8]).astype("float32"), "target": rng.randint(5, size=[6])}


# tfport >
def graph():
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.05, weight_decay=1e-2)
    scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.7)

    def step(data, target):
        return train(model, optimizer, scheduler, data, target)

    return {"module": model, "optimizer": optimizer, "step": step}


# < tfport
