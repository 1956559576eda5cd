//! cloakroom as a tower layer, for axum and friends.
