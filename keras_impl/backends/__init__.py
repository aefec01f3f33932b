"""Everything that asks which backend this is. Above it nothing does."""
