"""Makes `import torchvision` work where its compiled operators cannot load (CPU torch, stock torchvision)."""

import functools
import importlib
import sys

_MISSING_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[object] = []


@functools.cache
def ensure_torchvision() -> None:
    """Import torchvision, registering the operator schemas whose absence makes the import fail.

    torchvision's wheel from PyPI is built against CUDA torch; beside CPU torch its operators do not
    load and the import raises `operator torchvision::nms does not exist`. Only the schemas are
    needed to import; framepred calls none of these operators. Call this before `torchvision`,
    `transformers` or `torchmetrics` is imported.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        import torch

        # A failed import leaves half-made modules behind, which the second import would trust.
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in _MISSING_SCHEMAS:
            library.define(schema)
        _libraries.append(library)
        importlib.import_module("torchvision")
