"""What a run would take: FLOPs, memory and traffic of its compiled step; nothing runs."""
