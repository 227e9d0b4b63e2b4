"""One model for many clients: a service that answers FedBPT's questions over HTTP, and its client."""
