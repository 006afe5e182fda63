"""How the built-in pair `nano` is made: its grammar, tokenizer, model, training and measures."""
