//! Cloakroom sessions in SQLite.
