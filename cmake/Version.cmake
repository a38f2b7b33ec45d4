# The one place that names the version.
set(BARKRT_VERSION 0.1.0)
