//! Beside real php-memcached, on the same sessions at the same time.
