"""DPO on soft labels: each row's own probability `p` that chosen is better, where DPO takes 1 for granted.

The loss is the cross-entropy between p and the policy's preference, -p log s(h) - (1 - p) log s(-h) with
h = beta * (log-ratio of chosen - log-ratio of rejected): conservative DPO (Mitchell 2023) with a row's own noise, as
RL-CAI's preference model is trained (section 4.2 of Bai et al. 2022). At p = 1 it is TRL's `sigmoid` loss.
"""

from __future__ import annotations

from typing import Any  # torch and TRL ship no types that mypy may see here

import torch
from torch.nn.functional import logsigmoid
from trl import DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from rlaif.errors import ConfigError

_NOT_FOR_MODEL = {"completion_mask", "ref_chosen_logps", "ref_rejected_logps"}
# What TRL's own loss does with these options is not done here.
_PLAIN = {"loss_type": ["sigmoid"], "f_divergence_type": "reverse_kl", "ld_alpha": None, "use_weighting": False}


def soft_loss(preference: Any, p: Any) -> Any:
    """Of each row; `preference` is the h above."""
    return -p * logsigmoid(preference) - (1 - p) * logsigmoid(-preference)


class SoftDPOTrainer(DPOTrainer):  # type: ignore[misc]  # Any, as TRL is not looked at
    """TRL tokenizes, batches and computes as ever; `p` is carried through, and the loss reads it."""

    data_collator: Any

    def __init__(self, *, args: Any, **wanted: Any) -> None:
        if other := [name for name, value in _PLAIN.items() if getattr(args, name) != value]:
            raise ConfigError(f"soft labels have a loss of their own: leave out {other[0]}, or --soft")
        super().__init__(args=args, **wanted)
        if self.aux_loss_enabled:
            raise ConfigError("soft labels leave a mixture of experts' own loss out: set router_aux_loss_coef=0")
        theirs = self.data_collator
        self.data_collator = _Collator(
            theirs.pad_token_id, theirs.max_length, theirs.truncation_mode, theirs.pad_to_multiple_of
        )

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if "p" not in self._signature_columns:
            self._signature_columns.append("p")

    def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
        """Also while they are computed ahead: the model takes no `p`."""
        return super().compute_ref_log_probs(model, {name: value for name, value in inputs.items() if name != "p"})

    def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
        mask = inputs["completion_mask"][..., 1:]
        for_model = {name: value for name, value in inputs.items() if name not in _NOT_FOR_MODEL | {"p"}}
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        outputs = model(**for_model, use_cache=False, labels=labels, fused_lm_head=True)
        logps = outputs.log_probs[:, -mask.size(1) :].sum(dim=1).chunk(2)
        if self.precompute_ref_logps:
            reference = inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
        else:
            reference = self.compute_ref_log_probs(self.ref_model or self.model, inputs)
        rewards = [self.beta * (policy - before) for policy, before in zip(logps, reference, strict=True)]
        losses = soft_loss(rewards[0] - rewards[1], inputs["p"])
        with torch.no_grad():
            self._note(inputs, outputs, mask, logps, rewards)
        loss = losses.mean()
        return (loss, outputs) if return_outputs else loss

    def _note(self, inputs: Any, outputs: Any, mask: Any, logps: Any, rewards: Any) -> None:
        """The figures that TRL logs of a preference training, under its names."""
        mode = "train" if self.model.training else "eval"
        gather = self.accelerator.gather_for_metrics
        noted = self._metrics[mode]
        if mode == "train":
            self._total_train_tokens += gather(inputs["attention_mask"].sum()).sum().item() // self._tp_size
        noted["num_tokens"] = [self._total_train_tokens]
        chosen, rejected = rewards
        figures = {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/accuracies": (chosen > rejected).float(),
            "rewards/margins": chosen - rejected,
            "logps/chosen": logps[0],
            "logps/rejected": logps[1],
        }
        for name, value in figures.items():
            noted[name].append(gather(value.detach()).mean().item())
        n = mask.size(1)
        sides = mask.chunk(2)
        logits = outputs.mean_logits[:, -n:].chunk(2)
        top1 = outputs.is_top1[:, -n:].chunk(2)[0]
        self._note_mean("entropy", outputs.entropy[:, -n:], mask, noted)
        self._note_mean("logits/chosen", logits[0], sides[0], noted)
        self._note_mean("logits/rejected", logits[1], sides[1], noted)
        self._note_mean("mean_token_accuracy", top1.float(), sides[0], noted)

    def _note_mean(self, name: str, of_tokens: Any, mask: Any, noted: Any) -> None:
        """Over the tokens of all processes; where the mask is 0 a figure may be no number."""
        gather = self.accelerator.gather_for_metrics
        total = gather(of_tokens.detach()[mask.bool()].sum()).sum()
        tokens = gather(mask.sum()).sum()
        noted[name].append((total / tokens).item() if tokens else 0.0)


class _Collator(DataCollatorForPreference):  # type: ignore[misc]  # Any, as above
    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super().torch_call(examples)
        batch["p"] = torch.tensor([example["p"] for example in examples], dtype=torch.float32)
        return batch
