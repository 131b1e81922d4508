"""Train a random forest."""

import argparse
import os

import joblib
import pandas as pd
from columns import TARGET  # a sibling, as in any user's source directory
from sklearn.ensemble import RandomForestClassifier

parser = argparse.ArgumentParser()
parser.add_argument("--n_estimators", type=int, default=10)
parser.add_argument("--max_depth", type=int, default=3)
arguments = parser.parse_args()

table = pd.read_csv(os.path.join(os.environ["SM_CHANNEL_TRAIN"], "train.csv"))
model = RandomForestClassifier(arguments.n_estimators, max_depth=arguments.max_depth, random_state=0)
model.fit(table.drop(columns=TARGET), table[TARGET])
joblib.dump(model, os.path.join(os.environ["SM_MODEL_DIR"], "model.joblib"))
print(f"trained {arguments.n_estimators} trees")
