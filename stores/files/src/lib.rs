//! cloakroom sessions in PHP's own files.
