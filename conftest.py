"""Settings of this checkout only; the plugin and its fixtures come with the package."""

pytest_plugins = ["pytester"]
