"""The front door of a checkout: the same as the installed ``rsna-seq``."""

from rsna_seq.__main__ import main

if __name__ == "__main__":
    main()
