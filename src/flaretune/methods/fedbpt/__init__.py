"""FedBPT (Sun et al., arXiv 2310.01467): black-box prompt search with CMA-ES, in numpy and pycma, without torch."""
