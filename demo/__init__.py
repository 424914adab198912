"""An embedded corpus and a prompt, so that the software can be heard without any recordings."""
