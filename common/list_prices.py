"""What an ML instance costs an hour on demand, for figures that are shown. Runs in the GPU training container too.

US dollars in us-east-1, the same for training and real-time inference, as published in 2025. pipelines/prices.py asks
AWS's Price List where it can.
"""

from __future__ import annotations

LIST_PRICES = {
    "ml.c5.xlarge": 0.204,
    "ml.g4dn.xlarge": 0.736,
    "ml.g5.xlarge": 1.408,
    "ml.g5.2xlarge": 1.515,
    "ml.g5.4xlarge": 2.03,
    "ml.g5.12xlarge": 7.09,
    "ml.g5.48xlarge": 20.36,
    "ml.m5.large": 0.115,
    "ml.m5.xlarge": 0.23,
    "ml.m5.2xlarge": 0.461,
    "ml.p4d.24xlarge": 37.688,
}
