"""What flaretune's speed and messages are measured with; the numbers of the README come from here."""
