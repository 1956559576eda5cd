//! A store that fails: nothing is emptied, nobody is logged out, nothing is done twice.
