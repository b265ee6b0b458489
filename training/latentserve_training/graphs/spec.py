"""Description of an ONNX graph: its module, input, outputs and operations."""

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Graph:
    """One ONNX file: a module with one input, and the operations that it implements."""

    file: str
    module: nn.Module
    input_name: str  # "images" or "latents"
    output_names: tuple[str, ...]
    operations: tuple[str, ...]

    def evaluating(self) -> "Graph":
        """Put the module into evaluation mode and return the graph."""
        self.module.eval()
        return self


class GraphModule(nn.Module):
    """Wraps one method of a model as a module, as the ONNX exporter requires."""

    def __init__(self, model: nn.Module, method: str) -> None:
        super().__init__()
        self.model = model
        self.method = method

    def forward(self, batch: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Call the method."""
        result: Tensor | tuple[Tensor, ...] = getattr(self.model, self.method)(batch)
        return result
