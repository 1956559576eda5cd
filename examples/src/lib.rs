//! Small programs on cloakroom; the probe and the race table.
