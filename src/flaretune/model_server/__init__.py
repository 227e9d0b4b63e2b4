"""One model for many clients: a server that evaluates FedBPT's search points over HTTP, and its client."""
