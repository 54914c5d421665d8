"""Fine-tuning on what `rlaif` wrote: TRL's trainers behind one command that resumes, watches and reports."""
