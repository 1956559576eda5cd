//! What a PHP-compatible session is: ids, cookies, settings, lifecycle, and the store contract.
