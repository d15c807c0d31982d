"""Integrations: one training framework per file, each driving a Monitor at the right moment of its loop."""
