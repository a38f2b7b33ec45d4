"""What every training run shares: schedule, log, checkpoints that a later run goes on from."""

import argparse
import datetime
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

# Two processes with one thread each, started with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, share a run: they average
# their gradients, and the first one logs and saves.
RANK, PROCESSES = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def arguments(description: str, steps: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path, help="folder of checkpoint and log; a run goes on from what is there")
    parser.add_argument("--steps", type=int, default=steps, help="of the whole schedule")
    parser.add_argument("--stop", type=int, help="stop after this step of the schedule")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    if PROCESSES > 1:
        dist.init_process_group("gloo", timeout=datetime.timedelta(hours=1))
    args.out.mkdir(parents=True, exist_ok=True)
    return args


class Run:
    """A training run: iterate over it for the steps; it saves every save_every steps and at the end.

    A file named `steps` in the folder changes the number of steps of the schedule while the run goes on.
    """

    def __init__(self, args, name: str, model, rate: float, betas, decay=0.0, warm=100, floor=0.03, save_every=200):
        self.args, self.name, self.model, self.rate = args, name, model, rate
        self.warm, self.floor, self.save_every = warm, floor, save_every
        matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "layers" in n]
        chosen = {id(p) for p in matrices}
        others = [p for p in model.parameters() if id(p) not in chosen]
        groups = [{"params": others, "weight_decay": 0.0}]
        if matrices:
            groups.append({"params": matrices, "weight_decay": decay})
        self.optimizer = torch.optim.AdamW(groups, lr=rate, betas=betas)
        self.step, self.spent, self.steps = 0, 0.0, args.steps
        self.path = args.out / f"{name}.pt"
        self.log_path = args.out / f"{name}.jsonl"
        self.averages = {}
        if self.path.exists():
            state = torch.load(self.path, weights_only=False)
            model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.spent = state["step"], state["spent"]
            print(f"{name}: goes on at step {self.step}", flush=True)
        # After an interruption the draws differ from an uninterrupted run's; a run in one go repeats exactly.
        self.rng = np.random.default_rng([args.seed, self.step, RANK])
        torch.manual_seed(args.seed + self.step + RANK)
        self.began = time.time()
        count = sum(p.numel() for p in model.parameters())
        print(f"{name}: {count / 1e6:.2f} M parameters, {self.steps} steps", flush=True)

    @property
    def share(self) -> float:
        """Of the schedule, 0 to 1."""
        return min(1.0, self.step / self.steps)

    def __iter__(self):
        while self.step < min(self.steps, self.args.stop or self.steps):
            if self.step % 50 == 0:
                self._read_steps()
            rate = self.rate * min(1, (self.step + 1) / self.warm)
            rate *= 0.5 * (1 + math.cos(math.pi * self.share)) * (1 - self.floor) + self.floor
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            yield self.step
            if self.step % self.save_every == 0:
                self.save()
        self.save()

    def _read_steps(self) -> None:
        override = self.args.out / "steps"
        if override.exists():
            self.steps = int(override.read_text())
        if PROCESSES > 1:
            steps = torch.tensor(self.steps)
            dist.broadcast(steps, 0)
            self.steps = int(steps)

    def _average_gradients(self) -> None:
        gradients = [p.grad for p in self.model.parameters()]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        for g, part in zip(gradients, (flat / PROCESSES).split([g.numel() for g in gradients]), strict=True):
            g.copy_(part.view_as(g))

    def update(self, loss: torch.Tensor, /, **numbers) -> None:
        """One step down the loss; the numbers are averaged for the log."""
        self.optimizer.zero_grad()
        loss.backward()
        if PROCESSES > 1:
            self._average_gradients()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        for key, value in numbers.items():
            value = float(value.detach() if torch.is_tensor(value) else value)
            if value == value:
                self.averages[key] = value if key not in self.averages else 0.97 * self.averages[key] + 0.03 * value
        if self.step % 50 == 0 or self.step == 3:
            self.log(**self.averages)

    def seconds(self) -> float:
        return self.spent + time.time() - self.began

    def log(self, **numbers) -> None:
        if RANK:
            return
        row = {"step": self.step, "seconds": round(self.seconds(), 1)} | {k: round(v, 4) for k, v in numbers.items()}
        with self.log_path.open("a") as f:
            f.write(json.dumps(row) + "\n")
        print(" ".join(f"{k} {v}" for k, v in row.items()), flush=True)

    def save(self) -> None:
        if RANK:
            return
        state = {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
            "step": self.step, "spent": self.seconds(),
        }  # fmt: skip
        part = self.path.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, self.path)


def weights(path: Path) -> dict:
    """The model of a checkpoint."""
    return torch.load(path, weights_only=False)["model"]
