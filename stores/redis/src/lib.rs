//! Cloakroom sessions in Redis and Valkey, as php-redis keeps them.
