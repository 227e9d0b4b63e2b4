"""LP-FL's work done the plain way: a Hugging Face Trainer with PEFT, federated by NVFlare's recipe and by flwr."""
