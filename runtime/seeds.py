"""The seeds that are kept for reporting: what they score is quoted, so nothing is ever tuned on them."""

from runtime import config


def reporting_seeds() -> range:
    """Those of `configs/seeds.yaml`."""
    doc = config.Section(config.load(config.CONFIGS / "seeds.yaml"), "seeds.yaml")
    section = doc.section("reporting")
    first, count = section.take("first", config.integer(0, 10**9)), section.take("count", config.integer(1, 10**6))
    section.finish()
    doc.finish()
    return range(first, first + count)
