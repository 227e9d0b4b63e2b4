"""Client script of a verbalizer job: reads its flags, then replies to the server's tasks (see --help)."""

from flaretune.flare.client_script import main

if __name__ == "__main__":
    main("verbalizer")
