"""The schema's history, run by Alembic from `hotswap.stores.sqlite` when a store is opened."""
