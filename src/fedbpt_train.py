"""Client script of a FedBPT job: reads its flags, then answers the server's tasks (see --help)."""

from flaretune.flare.fedbpt_client import main

if __name__ == "__main__":
    main()
