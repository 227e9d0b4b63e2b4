"""Client script of an LP-FL job: reads its flags, then answers the server's tasks (see --help)."""

from flaretune.flare.lpfl_client import main

if __name__ == "__main__":
    main()
