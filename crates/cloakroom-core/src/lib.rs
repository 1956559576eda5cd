//! What a session *is*: ids, cookies, settings, the life of a session, and the contract with its store.
//!
//! Applications depend on the crate `cloakroom`; this one is for the authors of stores and of adapters for web
//! frameworks.

mod clock;
mod deadline;
mod error;
mod id;
mod random;
pub mod store;

pub use clock::{Clock, SystemClock};
pub use deadline::Deadline;
pub use error::{Error, ErrorKind, Result};
pub use id::{SessionId, Tag, is_id_byte};
pub use random::{Random, SystemRandom};
pub use store::{DynStore, Key, Store};
