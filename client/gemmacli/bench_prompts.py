"""What `gemma bench` asks: questions within the skills of the built-in pair `nano`."""

PROMPTS = (
    "How do I pull a model?",
    "How do I list my models?",
    "How do I see what is loaded?",
    "How do I run nano without the drafter?",
    "What can you do?",
    "Who are you?",
    "What is a drafter?",
    "What is top_k?",
    "Tell me a story about a fox called Rosa.",
    "Tell me a story about a squirrel called Anna.",
    "Make up a story about a cow named Emma.",
    "Reply as JSON with keys name, city: Anna lives in Oslo.",
)
