"""Split the raw table: 80 % train, 20 % test."""

import argparse
from pathlib import Path

import pandas as pd
from sklearn.model_selection import train_test_split

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, required=True)
seed = parser.parse_args().seed

base = Path("/opt/ml/processing")
table = pd.read_csv(base / "input/raw.csv")
train, test = train_test_split(table, test_size=0.2, random_state=seed, stratify=table["target"])
for name, part in (("train", train), ("test", test)):
    folder = base / "output" / name
    folder.mkdir(parents=True, exist_ok=True)
    part.to_csv(folder / f"{name}.csv", index=False)
print(f"{len(train)} rows to train, {len(test)} rows to test")
