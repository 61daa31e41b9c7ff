"""Audits: production against the reference within a computed bound, multiply-adds, and hashes of models and inputs."""
