"""The commands of `segzero`, one a module: options, one call into the packages, output."""
