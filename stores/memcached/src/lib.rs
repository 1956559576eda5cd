//! Cloakroom sessions in Memcached, as php-memcached keeps them.
