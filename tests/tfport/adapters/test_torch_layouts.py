"""PyTorch's recurrent layers against Keras's and a cell of TensorFlow 1's kind. `make test-torch` has PyTorch."""

# ruff: noqa: E402  what needs PyTorch is imported where PyTorch is there
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed; `make test-torch` runs this where it is")
nn: Any = torch.nn

from cases.layouts import INPUTS, SEQUENCE, UNITS, batches, graph, keras_gru, keras_lstm, layers, lstm, model
from tfport.adapters.torch_program import torch_module
from tfport.checking.check import check
from tfport.checking.report import CheckReport
from tfport.layouts import by_variables, in_words


class Last(nn.Module):  # type: ignore[misc,name-defined]
    """A recurrent layer and a dense one behind its last output, from each end where it reads from both."""

    def __init__(self, core: Any) -> None:
        super().__init__()
        self.core = core
        self.out = nn.Linear(core.hidden_size * (1 + core.bidirectional), 1)

    def forward(self, x: Any) -> Any:
        found, units = self.core(x)[0], self.core.hidden_size
        return self.out(torch.cat([found[:, -1, :units], found[:, 0, units:]], 1))


def original(make: Callable[..., Any], *more: Any, **options: Any) -> Callable[..., Any]:
    def build(dtype: str = "float32") -> Any:
        module = Last(make(INPUTS, UNITS, *more, batch_first=True, **options)).to(getattr(torch, dtype))
        optimizer = torch.optim.SGD(module.parameters(), 0.1)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = ((module(x) - y) ** 2).mean()
            loss.backward()
            optimizer.step()
            return {"loss": loss.detach()}

        return torch_module(module, optimizer, step=step)

    return build


def port(*make: Callable[[], Any]) -> Callable[..., Any]:
    """The port to Keras, trained by SGD."""

    def build() -> Any:
        found = model(SEQUENCE, lambda: [each() for each in make])()
        found.compile("sgd", "mse")
        found.optimizer.learning_rate = 0.1
        return found

    return build


def failing(report: CheckReport) -> list[str]:
    """The rungs that fail; weights start from other distributions in the two frameworks."""
    assert report.pair is not None
    return [rung.rung for rung in report.pair.rungs if not rung.verdict.equal and rung.rung != "initialisation"]


@pytest.mark.parametrize(
    ("legacy", "modern"),
    [
        (original(nn.GRU), port(keras_gru)),
        (original(nn.GRU, bidirectional=True), port(lambda: layers.Bidirectional(keras_gru()))),
        (original(nn.GRU, 2), port(lambda: keras_gru(return_sequences=True), keras_gru)),
    ],
    ids=["one way", "both ways", "stacked"],
)
def test_a_gru_is_turned_and_its_gates_change_places(legacy: Any, modern: Any) -> None:
    report = check(legacy, modern, batches(*SEQUENCE), steps=3)
    assert failing(report) == [], report.pair
    reasons = {pair.reason for pair in report.mapping if "core" in pair.legacy}
    assert reasons == {"forward pass: gates taken in the order 2, 1, 3"}


def test_two_biases_of_an_lstm_train_faster_than_keras_one() -> None:
    report = check(original(nn.LSTM), port(keras_lstm), batches(*SEQUENCE), steps=3)
    assert failing(report)[0] == "update"
    assert report.location is not None and "moves twice as far as one variable" in report.location.text


def test_the_forget_bias_is_found_where_the_ports_biases_are_drawn() -> None:
    report = check(graph(SEQUENCE, lstm()), original(nn.LSTM), batches(*SEQUENCE), steps=3)
    told = [in_words(pairs) for pairs in by_variables(report.mapping) if pairs[0].modern.endswith("bias_ih_l0")]
    assert told == ["elements 0 to 2, 6 to 8, 3 to 5, 9 to 11; 1 added to elements 6 to 8; added up with others"]
    assert not {"forward", "loss"} & set(failing(report))
