"""A round as one of the processes that `accelerate launch` starts: it ends with its launcher.

```
accelerate launch --config_file FILE -m training_hooks.launched --snapshot DIR ...
```

A launcher that is killed cannot end what it started; see `training_hooks.processes`.
"""

from __future__ import annotations

import sys

from training_hooks.processes import die_with_parent


def main() -> int:
    """Run the round; the arguments are those of `training_hooks.round`."""
    die_with_parent()
    from training_hooks.round import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
