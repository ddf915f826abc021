"""Why a contender is faster than `auto`, where one is: by workload and contender."""

REASONS: dict[str, dict[str, str]] = {}
