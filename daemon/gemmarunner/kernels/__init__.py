"""Operations of a decoding step on an accelerator, each beside a slow twin in plain torch."""
