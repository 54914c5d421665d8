"""The job with NeMo Data Designer: a seed data set and one text column, resumed if it was begun before."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))  # at the end: nothing of ours hides anything of theirs
import data_designer.config as dd
import workload
from data_designer.interface import DataDesigner

if __name__ == "__main__":
    given = workload.arguments(__doc__).parse_args()
    seeds = given.folder / "prompts.jsonl"
    if not seeds.exists():  # a new file would be another data set
        workload.write_prompts(seeds, given.rows)
    provider = dd.ModelProvider(name="mock", endpoint=given.url, provider_type="openai", api_key="MOCK_API_KEY")
    designer = DataDesigner(artifact_path=str(given.folder / "artifacts"), model_providers=[provider])
    designer.set_run_config(dd.RunConfig(otel_metrics_port=None, disable_early_shutdown=True))
    model = dd.ModelConfig(
        alias="policy",
        model=workload.MODEL,
        provider="mock",
        inference_parameters=dd.ChatCompletionInferenceParams(
            max_parallel_requests=given.in_flight, temperature=workload.TEMPERATURE, max_tokens=workload.MAX_TOKENS
        ),
    )
    builder = dd.DataDesignerConfigBuilder(model_configs=[model])
    builder.with_seed_dataset(dd.LocalFileSeedSource(path=str(seeds)))
    builder.add_column(
        dd.LLMTextColumnConfig(
            name="response", model_alias="policy", system_prompt=workload.SYSTEM, prompt="{{ prompt }}"
        )
    )
    made = designer.create(
        builder, num_records=given.rows, dataset_name="bench", resume=dd.ResumeMode.IF_POSSIBLE
    ).load_dataset()
    print(json.dumps(workload.checked(zip(made["prompt"], made["response"], strict=True), given.rows)))
