"""Score the model on the held-out rows."""

import json
import tarfile
from pathlib import Path

import joblib
import pandas as pd
from sklearn.metrics import accuracy_score

base = Path("/opt/ml/processing")
with tarfile.open(base / "model/model.tar.gz") as archive:
    archive.extractall(base / "model", filter="data")
model = joblib.load(base / "model/model.joblib")
table = pd.read_csv(base / "test/test.csv")
accuracy = accuracy_score(table["target"], model.predict(table.drop(columns="target")))
report = {"multiclass_classification_metrics": {"accuracy": {"value": accuracy}}, "rows": len(table)}
(base / "evaluation").mkdir(exist_ok=True)
(base / "evaluation/evaluation.json").write_text(json.dumps(report))
print(f"accuracy {accuracy:.3f}")
