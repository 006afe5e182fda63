"""What memory this machine has and lacks, and what a pair would take of it; never torch."""
