//! What a session *is*: ids, cookies, settings, the life of a session, and the contract with its store.
//!
//! Applications depend on the crate `cloakroom`; this one is for the authors of stores and of adapters for web
//! frameworks. A store implements [`Store`]; an adapter needs [`Engine::begin`] and [`Engine::finish`].
//!
//! | to know | look in |
//! |---|---|
//! | when a cookie is sent, and its bytes | [`cookie`], `head.rs` |
//! | which php.ini setting does what | [`Settings`] |
//! | what a verb does step by step | `session/` |
//! | what an error means and who has to act | [`ErrorKind`] |

mod clock;
pub mod cookie;
mod date;
mod deadline;
mod draft;
mod engine;
mod error;
mod head;
mod id;
mod integrations;
pub mod limiter;
pub mod line;
mod moved;
mod random;
mod session;
mod settings;
pub mod store;
mod tasks;

pub use cloakroom_php::{AsKey, Bag, Format, KeyRef, Value};
pub use clock::{Clock, SystemClock};
pub use deadline::Deadline;
pub use draft::{Draft, Snapshot};
pub use engine::Engine;
pub use error::{Error, ErrorKind, Result};
pub use id::{SessionId, Tag, is_id_byte};
pub use random::{Random, SystemRandom};
pub use session::{Session, StartOptions, Started};
pub use settings::{Settings, is_odd_number, is_per_directory};
pub use store::{DynStore, Key, Store};
pub use tasks::{Running, Task, Tasks};
