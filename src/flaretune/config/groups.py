"""Headings of --help and of the options' reference, with the sentence that stands under each."""

JOB = "job"
TASK, MODEL, PROMPT, SEARCH, EVALUATION, SERVER = "task and data", "model", "prompt", "search", "evaluation", "server"
ADAPTER, TRAINING, SOFT = "adapter", "training", "soft labels"
PRIVACY = "privacy"
SERVICE = "model server"
GROUPS = {
    JOB: "Where a job runs, and what becomes of its results.",
    TASK: "The task, and the labelled texts that it is learned from.",
    MODEL: "The language model.",
    PROMPT: "The prompt vectors that steer the model, which stays as it is, and the numbers they are made from.",
    SEARCH: "CMA-ES, which searches these numbers, at every client in every round.",
    ADAPTER: "What is trained and sent: LoRA adapters, or every parameter.",
    TRAINING: "How a client trains it in every round.",
    SOFT: "Labels that the global model gives to a client's unlabelled texts, which then join its labelled ones.",
    EVALUATION: "Where test accuracy comes from; it never chooses a round.",
    PRIVACY: "Noise on what a client sends, for differential privacy; PRIVACY.md says what it protects.",
    SERVER: "How many rounds, and what a round waits for.",
    SERVICE: "Where the model server is found, and what it refuses.",
}
