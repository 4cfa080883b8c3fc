"""A bundle as MLflow stores it: models from code, its signature, an example, pinned packages, and this library's code.

The library travels along, so that a machine without it can load the model.
"""

import importlib.metadata
import io
from pathlib import Path

import rootstock
from rootstock.models import bundle

EXAMPLE_SIDE = 64  # pixels
# what loading and predicting import, directly or through our modules
PACKAGES = (
    "mlflow", "numpy", "pandas", "pandera", "pillow", "pyarrow", "pydantic", "ruamel.yaml", "safetensors", "simplejpeg",
    "torch",
)  # fmt: skip


def save(path: Path, *, folder: Path, serving: dict) -> None:
    """Write a bundle as an MLflow model, and predict its example once.

    Args:
        path: of the folder to make.
        folder: the bundle.
        serving: decode and view, as `rootstock.evaluation.serving.Serving` takes them.
    """
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Map

    package = Path(rootstock.__file__).parent
    mlflow.pyfunc.save_model(
        str(path),
        python_model=str(Path(__file__).with_name("registered_model.py")),
        code_paths=[str(package)],
        artifacts={name: str(folder / name) for name in (bundle.MODEL, bundle.WEIGHTS)},
        signature=ModelSignature(
            inputs=Schema([ColSpec(DataType.binary, "image")]),
            outputs=Schema(
                [
                    ColSpec(DataType.string, "class"),
                    ColSpec(DataType.double, "probability"),
                    ColSpec(Map(DataType.double), "probabilities"),
                ]
            ),
        ),
        input_example=pd.DataFrame({"image": [_example()]}),
        pip_requirements=requirements(),
        model_config=serving,
    )


def requirements() -> list[str]:
    """Return the running versions of what the model needs, pinned; a build's own suffix (+cu132) is left out."""
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in PACKAGES]


def _example() -> bytes:
    """A grey JPEG: a person's images do not leave the project for an example's sake."""
    from PIL import Image

    data = io.BytesIO()
    Image.new("RGB", (EXAMPLE_SIDE, EXAMPLE_SIDE), "grey").save(data, "JPEG")
    return data.getvalue()
