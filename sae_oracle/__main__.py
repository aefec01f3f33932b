"""`python -m sae_oracle`: the same as the command `sae-oracle`."""

import os
import sys


def start() -> int:
    """Run the command; return its exit status, also if it is interrupted while it is imported."""
    from sae_oracle.names import find_our_own

    find_our_own()
    try:
        from sae_oracle.cli import main
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return main()


if __name__ == "__main__":
    if not sys.flags.safe_path:
        # `python -m` looks in the working folder first: a json.py or a reference/ there would run.
        folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        if sys.path[0] == folder:  # a checkout: this very package is there, and for children too
            os.environ["PYTHONPATH"] = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
        else:
            del sys.path[0]
    sys.exit(start())
