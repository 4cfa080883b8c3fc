"""The model as MLflow's registry holds it: image bytes in, class and probabilities out.

MLflow copies this file beside the bundle and runs it (models from code): nothing is pickled.
"""

from pathlib import Path
from typing import Any

import mlflow.models
import mlflow.pyfunc
import pandas as pd

from rootstock import distributed
from rootstock.evaluation import serving
from rootstock.models import bundle

MAX_BATCH = 64  # images decoded and held at once


class RegisteredModel(mlflow.pyfunc.PythonModel):
    """A bundle and how it is served, behind MLflow's interface."""

    def load_context(self, context: Any) -> None:
        """Read the bundle among the artifacts."""
        self._device = distributed.join().device
        classifier, self._facts = bundle.load(Path(context.artifacts[bundle.MODEL]).parent)
        self._classifier = classifier.to(self._device)
        self._serving = serving.Serving(**context.model_config)

    def predict(self, model_input: pd.DataFrame, params: dict | None = None) -> pd.DataFrame:
        """Predict the bytes of column `image`.

        Returns:
            A row an image: class (name of the most probable), probability (its own), probabilities (class -> p).
        """
        images, names = model_input["image"].tolist(), self._facts["class_names"]
        rows = []
        for start in range(0, len(images), MAX_BATCH):
            batch = images[start : start + MAX_BATCH]
            probabilities_NK = serving.predict(
                self._classifier, batch, facts=self._facts, serving=self._serving, device=self._device
            )
            for values in probabilities_NK.astype(float):
                best = int(values.argmax())
                rows.append((names[best], float(values[best]), dict(zip(names, values.tolist(), strict=True))))
        return pd.DataFrame(rows, columns=["class", "probability", "probabilities"])


mlflow.models.set_model(RegisteredModel())
