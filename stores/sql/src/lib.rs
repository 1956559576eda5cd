//! Cloakroom sessions in PostgreSQL, MySQL and MariaDB.
