//! cloakroom sessions in memory.
