"""Reports and exports of records. Does not import torch."""
