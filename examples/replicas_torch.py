"""Train on several processes with torch.distributed; every sample counts once.

    torchrun --nproc-per-node 2 examples/replicas_torch.py

Where there are GPUs, one a process, the same code uses nccl.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

from datetime import timedelta

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from keras_impl import SparseAutoencoder, full_cost

on_gpu = torch.cuda.is_available()
if on_gpu:
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
torch.distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(seconds=60))
rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()

x = np.random.default_rng(0).uniform(0.1, 0.9, size=(1111, 64)).astype("float32")
model = SparseAutoencoder(25, rho=0.05, beta=3.0, seed=0)
model.build((None, 64))
parallel = DistributedDataParallel(model)  # gives every rank the weights of the first
optimizer = torch.optim.SGD(parallel.parameters(), 0.1)
for _ in range(3):
    for start in range(0, len(x), 200):
        batch = x[start : start + 200]  # the last one has 111 rows
        rows = torch.tensor(np.array_split(batch, ranks)[rank], device="cuda" if on_gpu else "cpu")
        optimizer.zero_grad()
        loss = model.compute_loss(x=rows, y_pred=parallel(rows, training=True))
        loss.backward()
        optimizer.step()

# Every worker passes its part of the data; all get the cost of the whole.
cost = full_cost(model, np.array_split(x, ranks)[rank], batch_size=200)
if rank == 0:
    print(f"{ranks} processes: {cost.total:.9g}")
# The wrapper holds the group: while it lives, the group's threads do too, and one of them may
# be letting go of a tensor when the interpreter ends, which aborts the process.
del parallel, loss
torch.distributed.destroy_process_group()
